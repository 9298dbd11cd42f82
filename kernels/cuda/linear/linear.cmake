# QUIRE_LINEAR_SOURCES: what both worlds share. Beside them one make_dense_gemm(): lt_gemm.cpp for
# GPUs (cuBLASLt), tests/kernels/cuda/dense_gemm_double.cu for the emulation.
set(QUIRE_LINEAR_SOURCES)
foreach(source embed.cu linear.cpp lt_shape.cpp lt_table.cpp pack.cpp stream_fma.cu stream_mma.cu
    tile_mma.cu tile_simt.cu to_f16.cu)
  list(APPEND QUIRE_LINEAR_SOURCES ${CMAKE_CURRENT_LIST_DIR}/${source})
endforeach()
