#pragma once

#include "gateway/config/load_config.hpp"

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <sstream>
#include <string>
#include <sys/stat.h>

namespace neuroshard::test {

/// A directory of its own under the system's temporary one, gone at the end of the test.
class scratch_dir {
public:
  scratch_dir() {
    std::string pattern = (std::filesystem::temp_directory_path() / "neuroshard-config-XXXXXX").string();
    path_ = ::mkdtemp(pattern.data());
  }
  ~scratch_dir() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  scratch_dir(const scratch_dir&) = delete;
  scratch_dir& operator=(const scratch_dir&) = delete;

  const std::string& path() const { return path_; }
  std::string write(const std::string& name, const std::string& text, mode_t mode = 0644) const {
    const std::string file = path_ + "/" + name;
    std::ofstream(file, std::ios::binary) << text;
    ::chmod(file.c_str(), mode);
    return file;
  }
  static std::string read(const std::string& file) {
    std::ifstream in(file, std::ios::binary);
    std::ostringstream out;
    out << in.rdbuf();
    return out.str();
  }
  static unsigned mode(const std::string& file) {
    struct stat info {};
    return ::stat(file.c_str(), &info) == 0 ? info.st_mode & 07777U : 0;
  }

private:
  std::string path_;
};

/// A machine on which every test says the same.
inline machine_facts small_machine() {
  return {4, 16000, 50000};
}

/// Loads a configuration from arguments, variables, and nothing of the real environment.
struct load_fixture {
  scratch_dir dir;
  std::map<std::string, std::string> variables;

  std::string data_dir() const { return dir.path() + "/data"; }

  start_result<loaded_config> load(std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), {"--data-dir", data_dir()});
    auto line = parse_command_line(arguments);
    if (!line)
      return line.error();
    load_environment around;
    around.variable = [this](const std::string& name) -> std::optional<std::string> {
      const auto found = variables.find(name);
      if (found == variables.end())
        return std::nullopt;
      return found->second;
    };
    around.machine = small_machine();
    return load_config(*line, around);
  }
  std::string refused(const std::vector<std::string>& arguments) {
    auto loaded = load(arguments);
    if (loaded)
      return "accepted";
    if (loaded.error().code != exit_code::bad_configuration)
      return "wrong exit code";
    return loaded.error().line;
  }
  std::string refused_file(const std::string& text) {
    return refused({"--config", dir.write("node.toml", text)});
  }
};

inline bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

} // namespace neuroshard::test
