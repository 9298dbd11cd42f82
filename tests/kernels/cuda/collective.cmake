# Tests of kernels/cuda/collective over the emulation and the fake NCCL.
include(${CMAKE_SOURCE_DIR}/kernels/cuda/collective/collective.cmake)
if(QUIRE_NCCL_INCLUDE)
  quire_emulated_cuda_library(quire_emulated_collective
    ${QUIRE_COLLECTIVE_SOURCES} ${CMAKE_SOURCE_DIR}/kernels/cuda/status.cpp
    LINK quire_common absl::statusor absl::strings absl::synchronization absl::time)
  quire_nccl_library(quire_emulated_collective)
  quire_library(quire_fake_nccl ${CMAKE_SOURCE_DIR}/tests/fakes/fake_nccl.cpp
    LINK quire_emulated_collective)
  quire_test(collective_test collective_test.cpp peer_collective_test.cpp
    LINK quire_fake_nccl quire_emulated_collective LABELS threads)
else()
  message(STATUS "Collective over NCCL: not tested (no nccl.h)")
endif()
