# The two ways to compile one .cu file.
#
# quire_cuda_library(NAME a.cu b.cpp ... LINK libs...)           nvcc; where CMake's CUDA language is on
# quire_emulated_cuda_library(NAME a.cu b.cpp ... LINK libs...)  g++, as C++ over tests/cuda_emulation
#
# Both make a static, position-independent library with warnings as errors. C++ files among the sources
# are compiled by the host compiler and see the same CUDA runtime headers. Include this file before
# enable_language(CUDA): it names the default architectures.
include_guard(GLOBAL)

get_filename_component(root ${CMAKE_CURRENT_LIST_DIR}/../../.. ABSOLUTE)
set(QUIRE_CUDA_ROOT ${root} CACHE INTERNAL "seen by the functions below wherever they are called")
if(NOT CMAKE_CUDA_ARCHITECTURES)
  set(CMAKE_CUDA_ARCHITECTURES 80-real 86-real 89-real 90a-real 90-virtual CACHE STRING
    "GPU architectures; the last one as PTX, for newer GPUs" FORCE)
endif()

# Before the language is on, the search knows nothing of a compiler outside PATH.
if(IS_ABSOLUTE "${CMAKE_CUDA_COMPILER}" AND NOT CUDAToolkit_ROOT)
  get_filename_component(CUDAToolkit_ROOT ${CMAKE_CUDA_COMPILER}/../.. ABSOLUTE)
endif()
# CMake 3.25 sets a property of this target whether the toolkit has it or not; 13 has it no more.
if(NOT TARGET CUDA::nvToolsExt)
  add_library(CUDA::nvToolsExt INTERFACE IMPORTED)
endif()
find_package(CUDAToolkit QUIET)
find_path(QUIRE_CUDA_INCLUDE cuda_runtime_api.h
  HINTS ${CUDAToolkit_INCLUDE_DIRS} /usr/local/cuda/include
  DOC "Folder of cuda_runtime_api.h: a toolkit's, or the one in NVIDIA's PyPI wheels")

function(quire_cuda_library name)
  cmake_parse_arguments(ARG "" "" "LINK" ${ARGN})
  add_library(${name} STATIC ${ARG_UNPARSED_ARGUMENTS})
  target_include_directories(${name} PUBLIC ${QUIRE_CUDA_ROOT})
  target_include_directories(${name} SYSTEM PUBLIC ${QUIRE_CUDA_INCLUDE})
  target_link_libraries(${name} PUBLIC ${ARG_LINK})
  set_target_properties(${name} PROPERTIES POSITION_INDEPENDENT_CODE ON)
  # --fmad=false: products and sums round as the source writes them, as on the CPU; where a fused
  # multiply-add is meant, fmaf says so.
  target_compile_options(${name} PRIVATE
    "$<$<COMPILE_LANGUAGE:CUDA>:--fmad=false;--expt-relaxed-constexpr;--threads=2;-Werror=all-warnings>"
    "$<$<COMPILE_LANGUAGE:CUDA>:-Xcompiler=-Wall,-Wextra,-Wshadow,-Werror,-Wno-restrict>"
    "$<$<COMPILE_LANGUAGE:CXX>:-Wall;-Wextra;-Wpedantic;-Wshadow;-Werror;-Wno-restrict;-ffp-contract=off>")
endfunction()

# A .cu file is reached through a generated C++ file, so that the same file may also be compiled by nvcc.
function(quire_emulated_cuda_library name)
  cmake_parse_arguments(ARG "" "" "LINK" ${ARGN})
  set(sources)
  foreach(source ${ARG_UNPARSED_ARGUMENTS})
    if(source MATCHES "\\.cu$")
      get_filename_component(kernel ${source} ABSOLUTE)
      file(RELATIVE_PATH kernel ${QUIRE_CUDA_ROOT} ${kernel})
      set(source ${CMAKE_CURRENT_BINARY_DIR}/emulated/${kernel}.cpp)
      file(CONFIGURE OUTPUT ${source} CONTENT
        "#include \"tests/cuda_emulation/emulated_cuda.h\"\n\n#include \"${kernel}\"\n")
    endif()
    list(APPEND sources ${source})
  endforeach()
  add_library(${name} STATIC ${sources})
  target_link_libraries(${name} PRIVATE quire_flags PUBLIC quire_cuda_emulation ${ARG_LINK})
  target_include_directories(${name} PUBLIC ${QUIRE_CUDA_ROOT})
  # -O2 whatever the build type: lanes are several times slower without.
  target_compile_options(${name} PRIVATE -O2 -Wno-unknown-pragmas)
endfunction()
