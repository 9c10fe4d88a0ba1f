#pragma once

/// Every test file includes this instead of doctest itself, so that the kernels' tests also build where
/// doctest is missing (a GPU machine with only a compiler): then a small stand-in gives the same macros.
/// -DNEUROSHARD_SMALL_DOCTEST asks for it.
#if __has_include(<doctest/doctest.h>) && !defined(NEUROSHARD_SMALL_DOCTEST)
#include <doctest/doctest.h>
#else
#include "tests/support/small_doctest.hpp"
#endif
