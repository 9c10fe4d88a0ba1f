#include "kernels/cpu/cpu_isa.hpp"

#include <algorithm>
#include <array>
#include <cpuid.h>
#include <cstring>
#include <iterator>
#include <unistd.h>

namespace neuroshard::kernels::cpu {

namespace {

constexpr std::array<const char*, 5> names{"none", "sse4", "avx2", "avx512", "avx512_bf16"};

/// The register states that the operating system saves on a task switch (XCR0); 0 without XSAVE.
uint64_t saved_states() noexcept {
  unsigned a = 0;
  unsigned b = 0;
  unsigned c = 0;
  unsigned d = 0;
  if (__get_cpuid(1, &a, &b, &c, &d) == 0 || (c & bit_OSXSAVE) == 0)
    return 0;
  uint32_t low = 0;
  uint32_t high = 0;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return low | (uint64_t{high} << 32);
}

} // namespace

const char* to_string(isa level) noexcept {
  return names[static_cast<size_t>(level)];
}

isa detect_isa() noexcept {
  __builtin_cpu_init();
  if (!__builtin_cpu_supports("sse4.2") || !__builtin_cpu_supports("popcnt"))
    return isa::none;
  // __builtin_cpu_supports looks at XCR0 too.
  if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma"))
    return isa::sse4;
  // Highway's AVX2 target also needs BMI2 and F16C.
  unsigned a = 0;
  unsigned b = 0;
  unsigned c = 0;
  unsigned d = 0;
  if (__get_cpuid(1, &a, &b, &c, &d) == 0 || (c & bit_F16C) == 0 || !__builtin_cpu_supports("bmi2"))
    return isa::sse4;
  if (!__builtin_cpu_supports("avx512f") || !__builtin_cpu_supports("avx512bw") ||
      !__builtin_cpu_supports("avx512cd") || !__builtin_cpu_supports("avx512dq") ||
      !__builtin_cpu_supports("avx512vl"))
    return isa::avx2;
  if (__get_cpuid_count(7, 1, &a, &b, &c, &d) == 0 || (a & (1U << 5)) == 0)
    return isa::avx512;
  return isa::avx512_bf16;
}

result<isa> choose_isa(std::string_view name) {
  const isa best = detect_isa();
  if (best == isa::none)
    return status{code::unavailable, "the CPU backend needs an x86-64-v2 processor (SSE4.2)"};
  if (name.empty())
    return best;
  const auto found = std::find(names.begin() + 1, names.end(), name);
  if (found == names.end())
    return status{code::invalid_argument, "unknown instruction set '" + std::string(name) +
                                              "': one of sse4, avx2, avx512, avx512_bf16"};
  return std::min(best, static_cast<isa>(std::distance(names.begin(), found)));
}

bool has_amx_bf16() noexcept {
  unsigned a = 0;
  unsigned b = 0;
  unsigned c = 0;
  unsigned d = 0;
  constexpr uint64_t tile_states = (1U << 17) | (1U << 18);
  return __get_cpuid_count(7, 0, &a, &b, &c, &d) != 0 && (d & (1U << 22)) != 0 && (d & (1U << 24)) != 0 &&
         (saved_states() & tile_states) == tile_states;
}

std::string processor_name() {
  std::array<unsigned, 12> words{};
  for (unsigned i = 0; i < 3; ++i)
    if (__get_cpuid(0x80000002U + i, &words[4 * i], &words[4 * i + 1], &words[4 * i + 2],
                    &words[4 * i + 3]) == 0)
      return "x86-64 processor";
  std::array<char, 49> text{};
  std::memcpy(text.data(), words.data(), 48);
  std::string name(text.data());
  const auto first = name.find_first_not_of(' ');
  if (first == std::string::npos)
    return "x86-64 processor";
  return name.substr(first, name.find_last_not_of(' ') - first + 1);
}

uint64_t physical_memory() noexcept {
  const long pages = sysconf(_SC_PHYS_PAGES);
  const long page_size = sysconf(_SC_PAGE_SIZE);
  return pages > 0 && page_size > 0 ? static_cast<uint64_t>(pages) * static_cast<uint64_t>(page_size) : 0;
}

} // namespace neuroshard::kernels::cpu
