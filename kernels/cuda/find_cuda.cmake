# Turns on CMake's CUDA language where a toolkit of 13 or newer is found. Included by the top
# CMakeLists.txt: a language belongs to the whole project.
set(QUIRE_CUDA AUTO CACHE STRING "CUDA backend: AUTO (where nvcc is found), ON (required), OFF")
include(${CMAKE_CURRENT_LIST_DIR}/dev/quire_cuda.cmake)

function(quire_no_cuda why)
  if(QUIRE_CUDA STREQUAL "ON")
    message(FATAL_ERROR "CUDA backend: ${why}")
  endif()
  message(STATUS "CUDA backend: not built (${why})")
endfunction()

if(QUIRE_CUDA STREQUAL "OFF")
  quire_no_cuda("QUIRE_CUDA is OFF")
  return()
endif()
include(CheckLanguage)
check_language(CUDA)
if(NOT CMAKE_CUDA_COMPILER)
  quire_no_cuda("no nvcc; ./deploy/setup.sh --cuda brings one")
  return()
endif()
execute_process(COMMAND ${CMAKE_CUDA_COMPILER} --version OUTPUT_VARIABLE release)
string(REGEX MATCH "release ([0-9]+)" release "${release}")
if(CMAKE_MATCH_1 LESS 13)
  quire_no_cuda("${CMAKE_CUDA_COMPILER} is release ${CMAKE_MATCH_1}, 13 is the oldest known to work")
  return()
endif()
enable_language(CUDA)
# CMake 3.25 knows no C++20 flag of nvcc's.
set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION "-std=c++20")
set(CMAKE_CUDA20_EXTENSION_COMPILE_OPTION "-std=c++20")
message(STATUS "CUDA backend: ${CMAKE_CUDA_COMPILER} ${CMAKE_CUDA_COMPILER_VERSION}, "
  "architectures ${CMAKE_CUDA_ARCHITECTURES}")
