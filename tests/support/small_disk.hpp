#pragma once

#include "tests/support/test.hpp"

#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <string>
#include <utility>

namespace neuroshard::test {

/// A file system of its own with room for a few bytes (tmpfs), mounted in a mount namespace that only the
/// calling thread, and those it starts later, have: a disk that is really full, or really read-only. It needs
/// root; where that is not had, `missing` is true and the test says so and ends.
class small_disk {
public:
  /// `at` is made when it is not there.
  small_disk(std::string at, uint64_t bytes) : at_(std::move(at)) {
    ::mkdir(at_.c_str(), 0700);
    mounted_ = ::unshare(CLONE_NEWNS) == 0 &&
               ::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0 &&
               ::mount("neuroshard-test", at_.c_str(), "tmpfs", 0, size_option(bytes).c_str()) == 0;
    if (!mounted_)
      MESSAGE("skipped: no file system of its own can be mounted (" << std::strerror(errno)
                                                                    << "); this test needs root");
  }
  ~small_disk() {
    if (mounted_)
      ::umount2(at_.c_str(), MNT_DETACH);
  }
  small_disk(const small_disk&) = delete;
  small_disk& operator=(const small_disk&) = delete;

  bool missing() const noexcept { return !mounted_; }
  /// Not below what is in use.
  void resize(uint64_t bytes) { remount(0, bytes); }
  /// Takes what room is left with a file of its own, and gives it back.
  void fill() {
    const std::string page(4096, 'x');
    std::FILE* file = std::fopen(filler().c_str(), "w");
    REQUIRE(file != nullptr);
    std::setbuf(file, nullptr);
    while (std::fwrite(page.data(), 1, page.size(), file) == page.size()) {
    }
    std::fclose(file);
  }
  void clear() { REQUIRE(::unlink(filler().c_str()) == 0); }
  /// Open files that could be written to must have been closed.
  void make_read_only(uint64_t bytes) { remount(MS_RDONLY, bytes); }

private:
  std::string filler() const { return at_ + "/filler"; }
  static std::string size_option(uint64_t bytes) { return "mode=0700,size=" + std::to_string(bytes); }
  void remount(unsigned long flags, uint64_t bytes) {
    INFO(std::strerror(errno));
    REQUIRE(::mount("neuroshard-test", at_.c_str(), "tmpfs", MS_REMOUNT | flags,
                    size_option(bytes).c_str()) == 0);
  }

  std::string at_;
  bool mounted_ = false;
};

} // namespace neuroshard::test
