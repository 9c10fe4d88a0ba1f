#include "tests/support/test.hpp"

#include "gateway/config/data_dir.hpp"
#include "tests/gateway/config/scratch_dir.hpp"

#include <sys/wait.h>
#include <unistd.h>

using namespace neuroshard;
using namespace neuroshard::test;

TEST_CASE("a data directory is made with its parts, for its owner alone") {
  scratch_dir scratch;
  const std::string root = scratch.path() + "/a/b";
  auto dir = data_dir::open(root);
  REQUIRE(dir);
  CHECK(scratch_dir::mode(root) == 0700);
  for (const std::string& part : {dir->paths().checkpoints(), dir->paths().data_cache(), dir->paths().logs(),
                                  dir->paths().tls(), dir->paths().training_logs()})
    CHECK(scratch_dir::mode(part) == 0700);
  CHECK(dir->paths().checkpoints("00112233aabbccdd", 3) == root + "/checkpoints/00112233aabbccdd-3");
}

TEST_CASE("an open directory is closed to others") {
  scratch_dir scratch;
  ::chmod(scratch.path().c_str(), 0755);
  REQUIRE(data_dir::open(scratch.path()));
  CHECK(scratch_dir::mode(scratch.path()) == 0700);
}

TEST_CASE("a second process is told who holds the directory") {
  scratch_dir scratch;
  auto first = data_dir::open(scratch.path());
  REQUIRE(first);
  first->sign("http://127.0.0.1:8000");
  const auto holder = who_holds(first->paths());
  REQUIRE(holder.has_value());
  CHECK(holder->pid == ::getpid());
  CHECK(holder->url == "http://127.0.0.1:8000");
  const auto second = data_dir::open(scratch.path());
  REQUIRE_FALSE(second);
  CHECK(second.error().code == exit_code::data_directory);
  CHECK(contains(second.error().line, "in use by process " + std::to_string(::getpid())));
  // Asking did not take the lock away.
  CHECK(who_holds(first->paths()).has_value());
}

TEST_CASE("the lock goes with the object, and with a killed process") {
  scratch_dir scratch;
  data_paths paths{scratch.path()};
  {
    auto first = data_dir::open(scratch.path());
    REQUIRE(first);
    auto moved = std::move(*first);
    CHECK(who_holds(paths).has_value());
  }
  CHECK_FALSE(who_holds(paths).has_value());
  int ready[2];
  REQUIRE(::pipe(ready) == 0);
  const pid_t child = ::fork();
  if (child == 0) {
    auto held = data_dir::open(scratch.path());
    const char word = held ? 'y' : 'n';
    if (::write(ready[1], &word, 1) == 1)
      ::pause();
    ::_exit(1);
  }
  char word = 0;
  REQUIRE(::read(ready[0], &word, 1) == 1);
  CHECK(word == 'y');
  CHECK_FALSE(data_dir::open(scratch.path()));
  ::kill(child, SIGKILL);
  ::waitpid(child, nullptr, 0);
  CHECK(data_dir::open(scratch.path()));
  ::close(ready[0]);
  ::close(ready[1]);
}

TEST_CASE("what cannot be a data directory is refused in one line") {
  scratch_dir scratch;
  const std::string file = scratch.write("file", "x");
  for (const std::string& path : {file, file + "/below", std::string("/proc/nothing/here")}) {
    const auto dir = data_dir::open(path);
    REQUIRE_FALSE(dir);
    CHECK(dir.error().code == exit_code::data_directory);
    CHECK(contains(dir.error().line, path));
    CHECK(dir.error().line.find('\n') == std::string::npos);
  }
  if (::getuid() != 0) {
    ::mkdir((scratch.path() + "/closed").c_str(), 0500);
    CHECK_FALSE(data_dir::open(scratch.path() + "/closed/x"));
  }
  CHECK_FALSE(who_holds(data_paths{scratch.path() + "/none"}).has_value());
}

TEST_CASE("a file is replaced as a whole") {
  scratch_dir scratch;
  const std::string path = scratch.path() + "/f";
  scratch.write("f.tmp", "left behind by a crash", 0666);
  REQUIRE(write_file_atomically(path, "one"));
  REQUIRE(write_file_atomically(path, "two"));
  CHECK(scratch_dir::read(path) == "two");
  CHECK(scratch_dir::mode(path) == 0600);
  CHECK_FALSE(std::filesystem::exists(path + ".tmp"));
  CHECK_FALSE(write_file_atomically(scratch.path() + "/none/f", "x"));
  ::mkdir((scratch.path() + "/d").c_str(), 0700);
  CHECK_FALSE(write_file_atomically(scratch.path() + "/d", "x"));
}

TEST_CASE("reading a file is bounded and takes regular files only") {
  scratch_dir scratch;
  CHECK(*read_file_bounded(scratch.write("f", "12345"), 5) == "12345");
  CHECK(contains(read_file_bounded(scratch.path() + "/f", 4).error().line, "larger than 4 bytes"));
  CHECK_FALSE(read_file_bounded(scratch.path(), 10));
  REQUIRE(::mkfifo((scratch.path() + "/p").c_str(), 0600) == 0);
  CHECK_FALSE(read_file_bounded(scratch.path() + "/p", 10));
  CHECK_FALSE(read_file_bounded("/dev/zero", 10));
}
