# What every folder's CMakeLists shares: the language level, warnings, sanitizers, ccache, mold, and the functions below.
# Included by the top level and by kernels/, which also builds alone.
include_guard(GLOBAL)

if(NOT CMAKE_BUILD_TYPE AND NOT CMAKE_CONFIGURATION_TYPES)
  set(CMAKE_BUILD_TYPE Release CACHE STRING "" FORCE)
endif()
set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
# Assertions stay on: they guard money and memory, and cost nothing that shows.
set(CMAKE_CXX_FLAGS_RELEASE "-O2")
set(CMAKE_CXX_FLAGS_RELWITHDEBINFO "-O1 -g")

get_filename_component(NEUROSHARD_ROOT "${CMAKE_CURRENT_LIST_DIR}/../.." ABSOLUTE)

find_program(NEUROSHARD_CCACHE ccache)
if(NEUROSHARD_CCACHE AND NOT CMAKE_CXX_COMPILER_LAUNCHER)
  set(CMAKE_CXX_COMPILER_LAUNCHER "${NEUROSHARD_CCACHE}")
endif()
find_program(NEUROSHARD_MOLD mold)
if(NEUROSHARD_MOLD)
  add_link_options(-fuse-ld=mold)
endif()
if(NEUROSHARD_SANITIZE)
  add_compile_options(-fsanitize=${NEUROSHARD_SANITIZE} -fno-omit-frame-pointer)
  add_link_options(-fsanitize=${NEUROSHARD_SANITIZE})
endif()

# Folders whose sources all include CAF or Beast set CMAKE_UNITY_BUILD: those headers and their templates cost a compiler far
# more than our lines, so a batch of sources is compiled as one. -DNEUROSHARD_UNITY=OFF compiles each alone (`tests/run
# --full` does), which shows a missing include.
option(NEUROSHARD_UNITY "Compile the sources of actors and gateways in batches" ON)
set(CMAKE_UNITY_BUILD_BATCH_SIZE 8)

add_library(neuroshard_options INTERFACE)
target_include_directories(neuroshard_options INTERFACE "${NEUROSHARD_ROOT}")
target_compile_options(neuroshard_options INTERFACE -Wall -Wextra -Wpedantic -Wno-pedantic -ffp-contract=off)
if(NEUROSHARD_UNITY)
  # A batch is one source to the compiler, which then takes anonymous namespaces for those of a header.
  target_compile_options(neuroshard_options INTERFACE -Wno-subobject-linkage)
endif()

# neuroshard_library(NAME SOURCES... [PUBLIC libs...] [PRIVATE libs...]): a static library with the house's options.
function(neuroshard_library name)
  cmake_parse_arguments(arg "" "" "SOURCES;PUBLIC;PRIVATE" ${ARGN})
  add_library(${name} STATIC ${arg_SOURCES})
  target_link_libraries(${name} PUBLIC neuroshard_options ${arg_PUBLIC} PRIVATE ${arg_PRIVATE})
endfunction()

# neuroshard_test(NAME SOURCES... LIBS... [LABELS...] [TIMEOUT seconds]): a doctest program, known to ctest.
# tests/support/test_main.cpp brings doctest's main, or that of the small stand-in where doctest is missing.
function(neuroshard_test name)
  cmake_parse_arguments(arg "" "TIMEOUT" "SOURCES;LIBS;LABELS" ${ARGN})
  add_executable(${name} "${NEUROSHARD_ROOT}/tests/support/test_main.cpp" ${arg_SOURCES})
  target_link_libraries(${name} PRIVATE neuroshard_options ${arg_LIBS})
  set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY "${CMAKE_BINARY_DIR}/tests")
  add_test(NAME ${name} COMMAND ${name})
  if(NOT arg_TIMEOUT)
    set(arg_TIMEOUT 300)
  endif()
  set_tests_properties(${name} PROPERTIES TIMEOUT ${arg_TIMEOUT})
  if(arg_LABELS)
    set_tests_properties(${name} PROPERTIES LABELS "${arg_LABELS}")
  endif()
endfunction()
