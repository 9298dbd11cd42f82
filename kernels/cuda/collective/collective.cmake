# QUIRE_COLLECTIVE_SOURCES: what a library of the CUDA room is made of, for nvcc's world and for the
# emulation's alike. quire_nccl_library(TARGET): tells nccl_api.cpp where the build found NCCL.
set(QUIRE_COLLECTIVE_SOURCES
  ${CMAKE_CURRENT_LIST_DIR}/nccl_api.cpp
  ${CMAKE_CURRENT_LIST_DIR}/nccl_collective.cpp
  ${CMAKE_CURRENT_LIST_DIR}/peer_collective.cpp
  ${CMAKE_CURRENT_LIST_DIR}/peer_meet.cu
  ${CMAKE_CURRENT_LIST_DIR}/watchdog.cpp)
find_path(QUIRE_NCCL_INCLUDE nccl.h HINTS ${QUIRE_CUDA_INCLUDE} ${CUDAToolkit_INCLUDE_DIRS})
find_library(QUIRE_NCCL NAMES nccl libnccl.so.2
  HINTS ${QUIRE_CUDA_INCLUDE}/../lib64 ${QUIRE_CUDA_INCLUDE}/../lib ${QUIRE_NCCL_INCLUDE}/../lib)

function(quire_nccl_library target)
  if(QUIRE_NCCL)
    target_compile_definitions(${target} PRIVATE QUIRE_NCCL_LIBRARY="${QUIRE_NCCL}")
  endif()
  target_link_libraries(${target} PUBLIC ${CMAKE_DL_LIBS})
  target_include_directories(${target} SYSTEM PUBLIC ${QUIRE_NCCL_INCLUDE})
endfunction()
