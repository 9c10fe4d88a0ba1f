#pragma once

/// A stand-in for the part of doctest that our tests use, for machines where doctest is not installed: the
/// same macros, subcases (a test case runs once for each path through them), scoped INFO, Approx, and a
/// `-tc=` filter with `*` wildcards. One translation unit of a program defines NEUROSHARD_SMALL_DOCTEST_MAIN
/// and so gets `main`. Checks may be made on any thread; a failed REQUIRE only on the one that runs the test
/// case.

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <functional>
#include <iostream>
#include <limits>
#include <mutex>
#include <set>
#include <sstream>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

namespace doctest {

/// A number that compares equal to those near it.
class Approx {
public:
  explicit Approx(double value) : value_(value) {}
  Approx& epsilon(double relative) {
    epsilon_ = relative;
    return *this;
  }
  Approx& scale(double scale) {
    scale_ = scale;
    return *this;
  }
  bool near(double other) const {
    return std::abs(other - value_) < epsilon_ * (scale_ + std::max(std::abs(other), std::abs(value_)));
  }
  friend bool operator==(double a, const Approx& b) { return b.near(a); }
  friend bool operator==(const Approx& a, double b) { return a.near(b); }
  friend bool operator!=(double a, const Approx& b) { return !b.near(a); }
  friend bool operator!=(const Approx& a, double b) { return !a.near(b); }
  friend bool operator<=(double a, const Approx& b) { return a < b.value_ || b.near(a); }
  friend bool operator>=(double a, const Approx& b) { return a > b.value_ || b.near(a); }
  friend bool operator<(double a, const Approx& b) { return a < b.value_ && !b.near(a); }
  friend bool operator>(double a, const Approx& b) { return a > b.value_ && !b.near(a); }
  friend std::ostream& operator<<(std::ostream& out, const Approx& a) {
    return out << "Approx(" << a.value_ << ')';
  }

private:
  double value_;
  double epsilon_ = static_cast<double>(std::numeric_limits<float>::epsilon()) * 100;
  double scale_ = 1;
};

namespace small {

struct test_case {
  const char* name;
  const char* file;
  int line;
  void (*body)();
};

/// Thrown by a failed REQUIRE; ends the test case.
struct stop_test {};

/// One level of subcases on the present path.
struct level {
  bool taken = false;   ///< a subcase of this level has been entered in this pass
  bool pending = false; ///< another one waits for a later pass
};

struct state {
  std::mutex guard;
  std::vector<test_case> cases;
  std::set<std::string> done; ///< subcases of which nothing is left to run
  std::vector<level> levels;
  std::string path;
  std::vector<std::function<void(std::ostream&)>> infos;
  int failures = 0; ///< of the present test case
};

inline state& all() {
  static state s;
  return s;
}

template <class T>
void print(std::ostream& out, const T& value) {
  if constexpr (std::is_same_v<T, bool>)
    out << (value ? "true" : "false");
  else if constexpr (std::is_same_v<T, std::nullptr_t>)
    out << "nullptr";
  else if constexpr (requires { out << value; })
    out << value;
  else if constexpr (std::is_enum_v<T>)
    out << static_cast<long long>(value);
  else
    out << "{?}";
}

/// Takes `builder * a << b` and `builder * a, b` alike, as doctest does.
struct message {
  std::ostream& out;
  template <class T>
  message& operator*(const T& value) {
    print(out, value);
    return *this;
  }
  template <class T>
  message& operator<<(const T& value) {
    return *this * value;
  }
  template <class T>
  message& operator,(const T& value) {
    return *this * value;
  }
};

inline void say(const char* file, int line, const std::string& text) {
  std::cout << file << ':' << line << ": " << text << '\n';
}

/// Counts and prints a failure, with the INFO lines around it.
inline void fail(const char* file, int line, const std::string& text) {
  const std::lock_guard lock(all().guard);
  ++all().failures;
  say(file, line, "FAILED: " + text);
  for (const auto& info : all().infos) {
    std::cout << "  with ";
    info(std::cout);
    std::cout << '\n';
  }
}

inline bool check(bool holds, const char* file, int line, const char* text, const std::string& why = {}) {
  if (!holds)
    fail(file, line, why.empty() ? text : std::string(text) + "  (" + why + ")");
  return holds;
}

template <class A, class B, class Compare>
bool compare(const A& a, const B& b, Compare holds, const char* file, int line, const char* text) {
  if (holds(a, b))
    return true;
  std::ostringstream values;
  print(values, a);
  values << " and ";
  print(values, b);
  return check(false, file, line, text, values.str());
}

inline void require(bool holds) {
  if (!holds)
    throw stop_test{};
}

struct info_scope {
  explicit info_scope(std::function<void(std::ostream&)> text) {
    const std::lock_guard lock(all().guard);
    all().infos.push_back(std::move(text));
  }
  ~info_scope() {
    const std::lock_guard lock(all().guard);
    all().infos.pop_back();
  }
  info_scope(const info_scope&) = delete;
  info_scope& operator=(const info_scope&) = delete;
};

/// Enters a subcase when it has work left and no sibling was entered in this pass.
class subcase {
public:
  subcase(const char* name, int line) {
    state& s = all();
    key_ = s.path + '/' + name + ':' + std::to_string(line);
    if (s.done.count(key_) != 0)
      return;
    if (s.levels.back().taken) {
      s.levels.back().pending = true;
      return;
    }
    s.levels.back().taken = true;
    s.levels.emplace_back();
    path_before_ = std::exchange(s.path, key_);
    entered_ = true;
  }
  ~subcase() {
    if (!entered_)
      return;
    state& s = all();
    const bool pending = s.levels.back().pending;
    s.levels.pop_back();
    s.path = path_before_;
    if (pending)
      s.levels.back().pending = true;
    else
      s.done.insert(key_);
  }
  subcase(const subcase&) = delete;
  subcase& operator=(const subcase&) = delete;
  explicit operator bool() const { return entered_; }

private:
  std::string key_;
  std::string path_before_;
  bool entered_ = false;
};

inline int add(test_case one) {
  all().cases.push_back(one);
  return 0;
}

/// Runs a test case until no subcase is left; true when nothing failed.
inline bool run(const test_case& one) {
  state& s = all();
  s.failures = 0;
  s.done.clear();
  do {
    s.levels.assign(1, level{});
    s.path.clear();
    try {
      one.body();
    } catch (const stop_test&) {
    } catch (const std::exception& error) {
      fail(one.file, one.line, std::string("threw: ") + error.what());
    } catch (...) {
      fail(one.file, one.line, "threw something that is no std::exception");
    }
  } while (s.levels.front().pending);
  if (s.failures > 0)
    say(one.file, one.line, std::string("in test case: ") + one.name);
  return s.failures == 0;
}

/// `*` stands for any text.
inline bool matches(std::string_view pattern, std::string_view text) {
  if (pattern.empty())
    return text.empty();
  if (pattern.front() == '*')
    return matches(pattern.substr(1), text) || (!text.empty() && matches(pattern, text.substr(1)));
  return !text.empty() && text.front() == pattern.front() && matches(pattern.substr(1), text.substr(1));
}

inline int main(int argc, char** argv) {
  std::string_view filter = "*";
  bool list = false;
  for (int i = 1; i < argc; ++i) {
    const std::string_view argument = argv[i];
    for (const std::string_view flag : {"-tc=", "--test-case="})
      if (argument.substr(0, flag.size()) == flag)
        filter = argument.substr(flag.size());
    list = list || argument == "-ltc" || argument == "--list-test-cases";
  }
  size_t passed = 0;
  size_t failed = 0;
  for (const test_case& one : all().cases) {
    if (!matches(filter, one.name))
      continue;
    if (list)
      std::cout << one.name << '\n';
    else
      ++(run(one) ? passed : failed);
  }
  std::cout << passed << " passed, " << failed << " failed\n";
  return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

} // namespace small
} // namespace doctest

#define NS_TEST_JOIN2(a, b) a##b
#define NS_TEST_JOIN(a, b) NS_TEST_JOIN2(a, b)
#define NS_TEST_NAME(stem) NS_TEST_JOIN(stem, __LINE__)

#define NS_TEST_CASE(function, name)                                                                         \
  static void function();                                                                                    \
  [[maybe_unused]] static const int NS_TEST_JOIN(function, _added) =                                         \
      ::doctest::small::add({name, __FILE__, __LINE__, function});                                           \
  static void function()
#define NS_TEST_FIXTURE(fixture_type, holder, name)                                                          \
  namespace {                                                                                                \
  struct holder : fixture_type {                                                                             \
    void body();                                                                                             \
  };                                                                                                         \
  }                                                                                                          \
  [[maybe_unused]] static const int NS_TEST_JOIN(holder, _added) =                                           \
      ::doctest::small::add({name, __FILE__, __LINE__, [] { holder{}.body(); }});                            \
  void holder::body()
#define TEST_CASE(name) NS_TEST_CASE(NS_TEST_NAME(ns_test_case_), name)
#define TEST_CASE_FIXTURE(fixture_type, name)                                                                \
  NS_TEST_FIXTURE(fixture_type, NS_TEST_NAME(ns_test_fixture_), name)
#define TEST_SUITE(name) namespace NS_TEST_NAME(ns_test_suite_)
#define SUBCASE(name)                                                                                        \
  if (const ::doctest::small::subcase NS_TEST_NAME(ns_subcase_){name, __LINE__}; NS_TEST_NAME(ns_subcase_))

#define NS_TEST_TEXT(...)                                                                                    \
  [&] {                                                                                                      \
    std::ostringstream ns_text;                                                                              \
    ::doctest::small::message{ns_text} * __VA_ARGS__;                                                        \
    return ns_text.str();                                                                                    \
  }()
#define INFO(...)                                                                                            \
  const ::doctest::small::info_scope NS_TEST_JOIN(ns_info_, __COUNTER__)(                                    \
      [&](std::ostream& ns_out) { ::doctest::small::message{ns_out} * __VA_ARGS__; })
#define CAPTURE(x) INFO(#x " := " << (x))
#define MESSAGE(...) ::doctest::small::say(__FILE__, __LINE__, NS_TEST_TEXT(__VA_ARGS__))
#define FAIL_CHECK(...) ::doctest::small::fail(__FILE__, __LINE__, NS_TEST_TEXT(__VA_ARGS__))
#define FAIL(...) (FAIL_CHECK(__VA_ARGS__), ::doctest::small::require(false))

#define NS_TEST_CHECK(holds, text) ::doctest::small::check(holds, __FILE__, __LINE__, text)
#define CHECK(...) NS_TEST_CHECK(static_cast<bool>(__VA_ARGS__), #__VA_ARGS__)
#define CHECK_FALSE(...) NS_TEST_CHECK(!static_cast<bool>(__VA_ARGS__), "not " #__VA_ARGS__)
#define CHECK_MESSAGE(condition, ...)                                                                        \
  (static_cast<bool>(condition) || (FAIL_CHECK(#condition ": " << NS_TEST_TEXT(__VA_ARGS__)), false))
#define REQUIRE(...) ::doctest::small::require(CHECK(__VA_ARGS__))
#define REQUIRE_FALSE(...) ::doctest::small::require(CHECK_FALSE(__VA_ARGS__))
#define REQUIRE_MESSAGE(condition, ...) ::doctest::small::require(CHECK_MESSAGE(condition, __VA_ARGS__))
#define WARN(...) static_cast<void>(__VA_ARGS__)

#define NS_TEST_COMPARE(op, a, b)                                                                            \
  ::doctest::small::compare((a), (b), [](const auto& ns_a, const auto& ns_b) { return ns_a op ns_b; },       \
                            __FILE__, __LINE__, #a " " #op " " #b)
#define CHECK_EQ(a, b) NS_TEST_COMPARE(==, a, b)
#define CHECK_NE(a, b) NS_TEST_COMPARE(!=, a, b)
#define CHECK_LT(a, b) NS_TEST_COMPARE(<, a, b)
#define CHECK_LE(a, b) NS_TEST_COMPARE(<=, a, b)
#define CHECK_GT(a, b) NS_TEST_COMPARE(>, a, b)
#define CHECK_GE(a, b) NS_TEST_COMPARE(>=, a, b)
#define REQUIRE_EQ(a, b) ::doctest::small::require(CHECK_EQ(a, b))
#define REQUIRE_NE(a, b) ::doctest::small::require(CHECK_NE(a, b))
#define REQUIRE_LT(a, b) ::doctest::small::require(CHECK_LT(a, b))
#define REQUIRE_LE(a, b) ::doctest::small::require(CHECK_LE(a, b))
#define REQUIRE_GT(a, b) ::doctest::small::require(CHECK_GT(a, b))
#define REQUIRE_GE(a, b) ::doctest::small::require(CHECK_GE(a, b))

#define CHECK_NOTHROW(...)                                                                                   \
  NS_TEST_CHECK(([&] {                                                                                       \
                  try {                                                                                      \
                    static_cast<void>(__VA_ARGS__);                                                          \
                    return true;                                                                             \
                  } catch (...) {                                                                            \
                    return false;                                                                            \
                  }                                                                                          \
                }()),                                                                                        \
                "nothing thrown by " #__VA_ARGS__)
#define CHECK_THROWS_AS(expression, type)                                                                    \
  NS_TEST_CHECK(([&] {                                                                                       \
                  try {                                                                                      \
                    static_cast<void>(expression);                                                           \
                    return false;                                                                            \
                  } catch (const type&) {                                                                    \
                    return true;                                                                             \
                  }                                                                                          \
                }()),                                                                                        \
                #type " thrown by " #expression)

#ifdef NEUROSHARD_SMALL_DOCTEST_MAIN
int main(int argc, char** argv) {
  return doctest::small::main(argc, argv);
}
#endif
