#include "tests/support/test.hpp"

#include "gateway/config/daemon.hpp"
#include "tests/gateway/config/scratch_dir.hpp"

#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

using namespace neuroshard;
using namespace neuroshard::test;

namespace {

/// Runs `body` in a child whose output goes to a file; returns its exit code.
template <class Body>
int in_child(const std::string& output, Body body) {
  std::fflush(nullptr); // What is buffered here is not the child's to write.
  const pid_t child = ::fork();
  if (child == 0) {
    const int fd = ::open(output.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600);
    ::dup2(fd, 1);
    ::dup2(fd, 2);
    const int code = body();
    std::fflush(nullptr);
    ::_exit(code);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

/// The daemon's life: reports, then waits for SIGTERM.
int daemon_body(const std::string& root) {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGTERM);
  sigprocmask(SIG_BLOCK, &set, nullptr);
  auto child = become_daemon(std::chrono::seconds(20));
  if (!child)
    return 99;
  {
    auto dir = data_dir::open(root);
    if (!dir) {
      child->failed(dir.error());
      return static_cast<int>(dir.error().code);
    }
    dir->sign("http://127.0.0.1:1");
    if (!write_pid_file(dir->paths()))
      return 98;
    child->ready("neuroshard: running in the background");
    int signal = 0;
    sigwait(&set, &signal);
    remove_pid_file(dir->paths());
  }
  ::_exit(0);
}

} // namespace

TEST_CASE("a daemon starts, is seen, refuses a second one, and stops") {
  scratch_dir scratch;
  const std::string root = scratch.path() + "/data";
  const std::string output = scratch.path() + "/output";
  const data_paths paths{root};
  CHECK(in_child(output, [&] { return static_cast<int>(report_status(paths)); }) == 6);
  CHECK(in_child(output, [&] { return static_cast<int>(stop_daemon(paths)); }) == 6);
  CHECK(contains(scratch_dir::read(output), "not running"));

  CHECK(in_child(output, [&] { return daemon_body(root); }) == 0);
  CHECK(scratch_dir::read(output) == "neuroshard: running in the background\n");
  const auto node = running_node(paths);
  REQUIRE(node.has_value());
  CHECK(scratch_dir::read(paths.pid()) == std::to_string(node->pid) + "\n");
  CHECK(scratch_dir::mode(paths.pid()) == 0600);
  CHECK(in_child(output, [&] { return static_cast<int>(report_status(paths)); }) == 0);
  CHECK(contains(scratch_dir::read(output), "http://127.0.0.1:1"));

  CHECK(in_child(output, [&] { return daemon_body(root); }) == 3);
  CHECK(contains(scratch_dir::read(output), "in use by process " + std::to_string(node->pid)));

  CHECK(in_child(output, [&] { return static_cast<int>(stop_daemon(paths)); }) == 0);
  CHECK_FALSE(running_node(paths).has_value());
  CHECK_FALSE(std::filesystem::exists(paths.pid()));
}

TEST_CASE("a daemon that dies while starting is reported") {
  scratch_dir scratch;
  const std::string output = scratch.path() + "/output";
  CHECK(in_child(output, [&]() -> int {
          auto child = become_daemon(std::chrono::seconds(20));
          ::_exit(7);
        }) == 5);
  CHECK(contains(scratch_dir::read(output), "ended while starting"));
}

TEST_CASE("a stale pid file names nobody") {
  scratch_dir scratch;
  const data_paths paths{scratch.path()};
  scratch.write("node.pid", std::to_string(::getppid()) + "\n");
  scratch.write("lock", std::to_string(::getppid()) + "\n\n");
  CHECK_FALSE(running_node(paths).has_value());
  CHECK(in_child(scratch.path() + "/output", [&] { return static_cast<int>(stop_daemon(paths)); }) == 6);
  remove_pid_file(paths);
  CHECK(std::filesystem::exists(paths.pid()));
}

TEST_CASE("logs are printed, or said to be missing") {
  scratch_dir scratch;
  const data_paths paths{scratch.path()};
  const std::string output = scratch.path() + "/output";
  CHECK(in_child(output, [&] { return static_cast<int>(print_logs(paths, 2)); }) == 3);
  ::mkdir(paths.logs().c_str(), 0700);
  scratch.write("logs/node.log", "one\ntwo\nthree\n");
  CHECK(in_child(output, [&] { return static_cast<int>(print_logs(paths, 2)); }) == 0);
  CHECK(scratch_dir::read(output) == "two\nthree\n");
}
