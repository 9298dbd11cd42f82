# QUIRE_ROW_SOURCES: what a library of the CUDA room is made of, for nvcc and for the emulation.
set(QUIRE_ROW_SOURCES)
foreach(source combine.cu copy_blocks.cu feed.cu gated.cu rms_norm.cu rope_store.cu select.cu take_rows.cu)
  list(APPEND QUIRE_ROW_SOURCES ${CMAKE_CURRENT_LIST_DIR}/${source})
endforeach()
