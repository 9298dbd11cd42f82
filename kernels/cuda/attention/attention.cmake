# QUIRE_ATTENTION_SOURCES: what a library of the CUDA room is made of, for nvcc and for the
# emulation.
set(QUIRE_ATTENTION_SOURCES)
foreach(source attention.cu merge.cu table.cpp
    mma_bf16_64.cu mma_bf16_80.cu mma_bf16_96.cu mma_bf16_128.cu mma_bf16_256.cu
    mma_f16_64.cu mma_f16_80.cu mma_f16_96.cu mma_f16_128.cu mma_f16_256.cu
    mma_f8_64.cu mma_f8_80.cu mma_f8_96.cu mma_f8_128.cu mma_f8_256.cu
    simt_bf16.cu simt_f16.cu simt_f32.cu simt_f8.cu)
  list(APPEND QUIRE_ATTENTION_SOURCES ${CMAKE_CURRENT_LIST_DIR}/${source})
endforeach()
