// Preloaded into a node by hanging_stop.py: a disk that does not answer. fsync and fdatasync of a file whose
// path contains NEUROSHARD_TEST_HANG_AT wait for as long as the file NEUROSHARD_TEST_HANG_WHILE exists.
#include <dlfcn.h>
#include <unistd.h>

#include <climits>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace {

bool hangs(int descriptor) {
  const char* at = std::getenv("NEUROSHARD_TEST_HANG_AT");
  const char* marker = std::getenv("NEUROSHARD_TEST_HANG_WHILE");
  if (at == nullptr || marker == nullptr)
    return false;
  char link[64];
  char path[PATH_MAX + 1] = {};
  std::snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
  return ::readlink(link, path, PATH_MAX) > 0 && std::strstr(path, at) != nullptr &&
         ::access(marker, F_OK) == 0;
}

int after_waiting(const char* name, int descriptor) {
  while (hangs(descriptor))
    ::usleep(20'000);
  return reinterpret_cast<int (*)(int)>(::dlsym(RTLD_NEXT, name))(descriptor);
}

} // namespace

extern "C" int fsync(int descriptor) {
  return after_waiting("fsync", descriptor);
}

extern "C" int fdatasync(int descriptor) {
  return after_waiting("fdatasync", descriptor);
}
