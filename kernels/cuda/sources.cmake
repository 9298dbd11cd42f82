# QUIRE_CUDA_SOURCES: the CUDA backend but for what is different under emulation (the library's product,
# linear/lt_gemm.cpp). Compiled by nvcc in CMakeLists.txt and by g++ in tests/cuda_emulation's world.
foreach(room attention collective linear row sample)
  include(${CMAKE_CURRENT_LIST_DIR}/${room}/${room}.cmake)
endforeach()
set(QUIRE_CUDA_SOURCES ${QUIRE_ATTENTION_SOURCES} ${QUIRE_COLLECTIVE_SOURCES} ${QUIRE_LINEAR_SOURCES}
  ${QUIRE_ROW_SOURCES} ${QUIRE_SAMPLE_SOURCES})
foreach(source device.cpp graphs.cpp memory_pool.cpp ops.cpp queue.cpp status.cpp)
  list(APPEND QUIRE_CUDA_SOURCES ${CMAKE_CURRENT_LIST_DIR}/${source})
endforeach()
