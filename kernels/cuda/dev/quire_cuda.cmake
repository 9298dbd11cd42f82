# The two ways to compile one .cu file.
#
# quire_cuda_library(NAME a.cu b.cpp ... LINK libs...)           nvcc, where CMake's CUDA language is on
# quire_emulated_cuda_library(NAME a.cu b.cpp ... LINK libs...)  g++, as C++ over tests/cuda_emulation
#
# Both make a static, position-independent library with warnings as errors. C++ files among the sources are
# compiled by the host compiler and see the same CUDA runtime headers.

get_filename_component(QUIRE_CUDA_ROOT ${CMAKE_CURRENT_LIST_DIR}/../../.. ABSOLUTE)
set(QUIRE_CUDA_ARCHITECTURES 80-real 86-real 89-real 90a-real 90-virtual)

find_package(CUDAToolkit QUIET)
find_path(QUIRE_CUDA_INCLUDE cuda_runtime_api.h
  HINTS ${CUDAToolkit_INCLUDE_DIRS} /usr/local/cuda/include
  DOC "Folder of cuda_runtime_api.h: a toolkit's, or the one in NVIDIA's PyPI wheels")

function(quire_cuda_library name)
  cmake_parse_arguments(ARG "" "" "LINK" ${ARGN})
  add_library(${name} STATIC ${ARG_UNPARSED_ARGUMENTS})
  target_include_directories(${name} PUBLIC ${QUIRE_CUDA_ROOT} SYSTEM PUBLIC ${QUIRE_CUDA_INCLUDE})
  target_link_libraries(${name} PUBLIC ${ARG_LINK})
  if(NOT CMAKE_CUDA_ARCHITECTURES)
    set_target_properties(${name} PROPERTIES CUDA_ARCHITECTURES "${QUIRE_CUDA_ARCHITECTURES}")
  endif()
  set_target_properties(${name} PROPERTIES POSITION_INDEPENDENT_CODE ON CUDA_STANDARD 20
    CUDA_STANDARD_REQUIRED ON CUDA_EXTENSIONS OFF)
  # No contraction that the source does not write: the numerics contract holds here as on the CPU.
  target_compile_options(${name} PRIVATE
    $<$<COMPILE_LANGUAGE:CUDA>:--fmad=false --expt-relaxed-constexpr --threads=2
      -Werror=all-warnings -Xcompiler=-Wall,-Wextra,-Wshadow,-Werror,-Wno-restrict>
    $<$<COMPILE_LANGUAGE:CXX>:-Wall -Wextra -Wpedantic -Wshadow -Werror -Wno-restrict -ffp-contract=off>)
endfunction()

function(quire_emulated_cuda_library name)
  cmake_parse_arguments(ARG "" "" "LINK" ${ARGN})
  add_library(${name} STATIC ${ARG_UNPARSED_ARGUMENTS})
  target_link_libraries(${name} PRIVATE quire_flags PUBLIC quire_cuda_emulation ${ARG_LINK})
  target_include_directories(${name} PUBLIC ${QUIRE_CUDA_ROOT})
  # -O2 whatever the build type: unoptimized lanes are six times slower.
  target_compile_options(${name} PRIVATE -O2)
  foreach(source ${ARG_UNPARSED_ARGUMENTS})
    if(source MATCHES "\\.cu$")
      set_source_files_properties(${source} PROPERTIES LANGUAGE CXX COMPILE_OPTIONS
        "-xc++;-include;${QUIRE_CUDA_ROOT}/tests/cuda_emulation/emulated_cuda.h;-Wno-unknown-pragmas")
    endif()
  endforeach()
endfunction()
