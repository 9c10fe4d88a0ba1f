#include "gateway/node/start_again.hpp"

#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <memory>
#include <system_error>

namespace neuroshard {

process_start process_start::of(int argc, char** argv) {
  process_start how;
  how.arguments.assign(argv, argv + argc);
  const std::unique_ptr<char, decltype(&std::free)> here(::getcwd(nullptr, 0), &std::free);
  if (here)
    how.directory = here.get();
  return how;
}

std::string start_again(const process_start& how) {
  if (!how.directory.empty() && ::chdir(how.directory.c_str()) != 0)
    return how.directory + ": " + std::generic_category().message(errno);
  std::vector<char*> arguments;
  for (const auto& one : how.arguments)
    arguments.push_back(const_cast<char*>(one.c_str())); // execv changes nothing of them
  arguments.push_back(nullptr);
  // Signals stay blocked: one that comes meanwhile is heard by the node that starts.
  ::execv("/proc/self/exe", arguments.data());
  return "exec: " + std::generic_category().message(errno);
}

} // namespace neuroshard
