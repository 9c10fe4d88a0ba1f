#if __has_include(<doctest/doctest.h>) && !defined(NEUROSHARD_SMALL_DOCTEST)
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include <doctest/doctest.h>
#else
#define NEUROSHARD_SMALL_DOCTEST_MAIN
#include "tests/support/small_doctest.hpp"
#endif
