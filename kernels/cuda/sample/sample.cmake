# QUIRE_SAMPLE_SOURCES: what a library of the CUDA room is made of, for nvcc and for the emulation.
set(QUIRE_SAMPLE_SOURCES)
foreach(source adjust.cu cut.cu histogram.cu input.cpp resum.cu sample.cpp scan.cu)
  list(APPEND QUIRE_SAMPLE_SOURCES ${CMAKE_CURRENT_LIST_DIR}/${source})
endforeach()
