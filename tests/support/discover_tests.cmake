# Read by CTest when it starts: names the tests of one GoogleTest program, as odmoe_test() of the
# root CMakeLists.txt says. A CTest test is a suite, since a process takes up to a tenth of a second
# to start under the address sanitizer and most tests take less; with ODMOE_EACH_TEST set in the
# environment it is one test. In: program, its path; timeout, seconds that one test may take;
# labels.
get_filename_component(name "${program}" NAME)
if(NOT EXISTS "${program}")
  add_test("${name}_NOT_BUILT" "${name}_NOT_BUILT")
  return()
endif()

set(list "${program}_list.txt")
if("${program}" IS_NEWER_THAN "${list}")
  # What a parameter is, behind the '#', may hold what CMake reads as its own.
  execute_process(COMMAND "${program}" --gtest_list_tests COMMAND sed "s/ *#.*//;s/ *$//"
                  OUTPUT_FILE "${list}" RESULTS_VARIABLE results)
  if(NOT results MATCHES "^0;0$")
    file(REMOVE "${list}")
    message(FATAL_ERROR "${program} --gtest_list_tests failed: ${results}")
  endif()
endif()

file(STRINGS "${list}" lines)
set(tests "")
foreach(line IN LISTS lines)
  if(line MATCHES "^([^ ]+)\\.$")
    set(suite "${CMAKE_MATCH_1}")
    if(NOT DEFINED ENV{ODMOE_EACH_TEST})
      list(APPEND tests "${suite}")
    endif()
  elseif(line MATCHES "^  ([^ ]+)$" AND DEFINED ENV{ODMOE_EACH_TEST})
    list(APPEND tests "${suite}.${CMAKE_MATCH_1}")
  endif()
endforeach()

foreach(test IN LISTS tests)
  if(DEFINED ENV{ODMOE_EACH_TEST})
    set(title "${test}")
    add_test("${title}" "${program}" "--gtest_filter=${test}")
    set(allowed ${timeout})
  else()
    # Two programs may have a suite of one name, and CTest sets properties by name.
    set(title "${name}.${test}")
    add_test("${title}" "${program}" "--gtest_filter=${test}.*")
    # Together as long as four that hang: no suite takes so much.
    math(EXPR allowed "4 * ${timeout}")
  endif()
  set_tests_properties("${title}" PROPERTIES TIMEOUT ${allowed} LABELS "${labels}")
endforeach()
