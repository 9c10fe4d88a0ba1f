#include "actors/telemetry/resources.hpp"
#include "tests/support/test.hpp"

#include <cstdlib>
#include <filesystem>
#include <fstream>

using namespace neuroshard;

namespace {

struct proc_tree {
  std::filesystem::path root;
  proc_tree() {
    std::string name = (std::filesystem::temp_directory_path() / "neuroshard-proc-XXXXXX").string();
    REQUIRE(::mkdtemp(name.data()) != nullptr);
    root = name;
    std::filesystem::create_directory(root / "self");
  }
  ~proc_tree() { std::filesystem::remove_all(root); }
  void put(const char* file, const char* text) const { std::ofstream{root / file} << text; }
};

} // namespace

TEST_CASE("the CPU share is that of the time between two samples, of the whole machine") {
  const proc_tree proc;
  proc.put("stat", "cpu  100 0 100 800 0 0 0 0 0 0\n");
  resource_sampler sampler{proc.root.string()};
  CHECK(sampler.sample().cpu_percent == 0);
  proc.put("stat", "cpu  150 0 125 825 0 0 0 0 0 0\n");
  CHECK(sampler.sample().cpu_percent == doctest::Approx(75));
  CHECK(sampler.sample().cpu_percent == 0);
}

TEST_CASE("memory is read in bytes") {
  const proc_tree proc;
  proc.put("meminfo", "MemTotal:       1000 kB\nMemFree:   1 kB\nMemAvailable:    400 kB\n");
  proc.put("self/statm", "500 10 3 1 0 4 0\n");
  resource_sampler sampler{proc.root.string()};
  const auto now = sampler.sample();
  CHECK(now.ram_total == 1000 * 1024);
  CHECK(now.ram_used == 600 * 1024);
  CHECK(now.process_bytes > 0);
}

TEST_CASE("files that are missing or malformed give zeros, never an error") {
  const proc_tree proc;
  proc.put("stat", "garbage");
  proc.put("meminfo", "MemTotal: many kB\n");
  resource_sampler sampler{proc.root.string()};
  const auto now = sampler.sample();
  CHECK(now.cpu_percent == 0);
  CHECK(now.ram_total == 0);
  CHECK(now.ram_used == 0);
}
