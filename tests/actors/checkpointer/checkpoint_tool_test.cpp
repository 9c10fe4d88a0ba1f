#include "actors/checkpointer/checkpoint_tool.hpp"
#include "tests/actors/checkpointer/checkpoint_support.hpp"
#include "tests/support/test.hpp"

#include <sstream>

using namespace neuroshard;
using namespace neuroshard::test;

namespace {

int run(std::vector<std::string> args, std::string& out, std::string& err) {
  std::ostringstream to_out;
  std::ostringstream to_err;
  const int code = run_checkpoint_tool(args, to_out, to_err);
  out = to_out.str();
  err = to_err.str();
  return code;
}

} // namespace

TEST_CASE("the tool lists and verifies the checkpoints of a node, a folder or one alone") {
  checkpoint_place place;
  const auto one = place.write(1, 1);
  const auto two = place.write(2, 2);
  std::string out;
  std::string err;
  for (const auto& path : {place.root.path(), place.folder, place.folder + "/"}) {
    CHECK(run({"list", path}, out, err) == 0);
    CHECK(out.find(two) < out.find(one));
    CHECK(out.find("step=2") != std::string::npos);
    CHECK(run({"verify", path}, out, err) == 0);
    CHECK(out.find(one + " ok") != std::string::npos);
  }
  CHECK(run({"verify", place.folder + "/" + one}, out, err) == 0);
  flip_byte(fs::path(place.folder) / one / "optimizer.bin", 100);
  CHECK(run({"verify", place.folder}, out, err) == 3);
  CHECK(err.find(one + " damaged: optimizer.bin") != std::string::npos);
  CHECK(out.find(two + " ok") != std::string::npos);
}

TEST_CASE("the tool refuses wrong arguments and places that are none") {
  std::string out;
  std::string err;
  CHECK(run({}, out, err) == 1);
  CHECK(run({"remove", "/tmp"}, out, err) == 1);
  CHECK(run({"list"}, out, err) == 1);
  CHECK(run({"list", "/nowhere/at/all"}, out, err) == 3);
  temporary_directory empty;
  CHECK(run({"list", empty.path()}, out, err) == 0);
  CHECK(out.find("no checkpoints") != std::string::npos);
}
