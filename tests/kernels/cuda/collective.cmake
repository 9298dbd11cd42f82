# Tests of kernels/cuda/collective over the emulation and the fake NCCL.
include(${CMAKE_SOURCE_DIR}/kernels/cuda/dev/quire_cuda.cmake)
include(${CMAKE_SOURCE_DIR}/kernels/cuda/collective/collective.cmake)
find_library(BOOST_CONTEXT boost_context)
if(QUIRE_CUDA_INCLUDE AND QUIRE_NCCL_INCLUDE AND BOOST_CONTEXT)
  quire_emulated_cuda_library(quire_emulated_collective
    ${QUIRE_COLLECTIVE_SOURCES} ${CMAKE_SOURCE_DIR}/kernels/cuda/status.cpp
    LINK quire_common absl::statusor absl::strings absl::synchronization absl::time)
  quire_nccl_library(quire_emulated_collective)
  quire_library(quire_fake_nccl ${CMAKE_SOURCE_DIR}/tests/fakes/fake_nccl.cpp
    LINK quire_emulated_collective)
  quire_test(collective_test ${CMAKE_SOURCE_DIR}/tests/kernels/cuda/collective_test.cpp
    LINK quire_fake_nccl quire_emulated_collective LABELS threads)
endif()
