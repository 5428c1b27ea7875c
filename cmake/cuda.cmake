# OCTAVO_CUDA: AUTO builds the CUDA kernels where nvcc is found, ON insists, OFF leaves them out.
set(OCTAVO_HAVE_CUDA OFF)
if(NOT OCTAVO_CUDA MATCHES "^(AUTO|ON|OFF)$")
  message(FATAL_ERROR "OCTAVO_CUDA is '${OCTAVO_CUDA}'; it must be AUTO, ON or OFF.")
endif()
if(NOT OCTAVO_CUDA STREQUAL OFF)
  set(CMAKE_CUDA_ARCHITECTURES OFF)  # octavo_cuda_sources() says them, file by file
  include(CheckLanguage)
  check_language(CUDA)
  if(CMAKE_CUDA_COMPILER)
    set(OCTAVO_HAVE_CUDA ON)
  elseif(OCTAVO_CUDA STREQUAL ON)
    message(FATAL_ERROR "OCTAVO_CUDA=ON, but no nvcc was found. Put it on PATH, set CUDACXX, or use OCTAVO_CUDA=OFF.")
  endif()
endif()
message(STATUS "Octavo: CUDA ${OCTAVO_HAVE_CUDA} (OCTAVO_CUDA=${OCTAVO_CUDA}; for ${OCTAVO_CUDA_ARCHITECTURES})")

if(OCTAVO_HAVE_CUDA)
  foreach(architecture IN LISTS OCTAVO_CUDA_ARCHITECTURES)
    if(NOT architecture MATCHES "^[0-9]+a?$")
      message(FATAL_ERROR "OCTAVO_CUDA_ARCHITECTURES is '${OCTAVO_CUDA_ARCHITECTURES}'; it must be a list such as 80;90a, of "
                          "compute capabilities without the point (tried: 75, 80, 90a, 100, 120).")
    endif()
  endforeach()
  enable_language(CUDA)
  find_package(CUDAToolkit REQUIRED)
  set(CMAKE_CUDA_STANDARD 20)
  set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION -std=c++20)  # which CMake 3.25 does not know of
  set(CMAKE_CUDA_EXTENSIONS OFF)
  set(CMAKE_CUDA_VISIBILITY_PRESET hidden)
  set(CMAKE_CUDA_RUNTIME_LIBRARY Static)
endif()

target_compile_definitions(octavo_options INTERFACE OCTAVO_HAVE_CUDA=$<BOOL:${OCTAVO_HAVE_CUDA}>)

# octavo_cuda_sources(TARGET FILES...): adds .cu files to a target where CUDA is built. *_sm90.cu is compiled for 90a alone,
# whose instructions (wgmma, TMA) no other architecture has; everything else for each of OCTAVO_CUDA_ARCHITECTURES.
function(octavo_cuda_sources target)
  if(NOT OCTAVO_HAVE_CUDA)
    return()
  endif()
  foreach(file IN LISTS ARGN)
    set(architectures ${OCTAVO_CUDA_ARCHITECTURES})
    if(file MATCHES "_sm90\\.cu$")
      set(architectures 90a)
    endif()
    list(TRANSFORM architectures REPLACE "(.+)" "--generate-code=arch=compute_\\1,code=sm_\\1")
    # The line tables are most of a kernel's bytes, and its instances resemble each other: a tenth is left. CUDA 12's modes need
    # a newer driver than CUDA 12 itself.
    if(CMAKE_CUDA_COMPILER_VERSION VERSION_GREATER_EQUAL 13.0)
      list(APPEND architectures --compress-mode=size)
    endif()
    set_source_files_properties(${file} TARGET_DIRECTORY ${target} PROPERTIES COMPILE_OPTIONS "${architectures}")
    target_sources(${target} PRIVATE ${file})
  endforeach()
endfunction()
