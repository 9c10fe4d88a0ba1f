#include "actors/telemetry/resources.hpp"

#include <unistd.h>

#include <fstream>
#include <sstream>

namespace neuroshard {

machine_resources resource_sampler::sample() {
  machine_resources now;
  std::string word;

  if (std::ifstream stat{root_ + "/stat"}; stat >> word && word == "cpu") {
    // user nice system idle iowait irq softirq steal; guest times are part of user and nice already.
    uint64_t field[8] = {};
    for (auto& value : field)
      stat >> value;
    uint64_t total = 0;
    for (const uint64_t value : field)
      total += value;
    const uint64_t busy = total - field[3] - field[4];
    if (total > total_ && total_ > 0 && busy >= busy_)
      now.cpu_percent = 100.0 * static_cast<double>(busy - busy_) / static_cast<double>(total - total_);
    busy_ = busy;
    total_ = total;
  }

  if (std::ifstream meminfo{root_ + "/meminfo"}) {
    uint64_t available = 0;
    for (std::string line; std::getline(meminfo, line);) {
      std::istringstream fields{line};
      uint64_t kib = 0;
      if (!(fields >> word >> kib))
        continue;
      if (word == "MemTotal:")
        now.ram_total = kib * 1024;
      else if (word == "MemAvailable:")
        available = kib * 1024;
    }
    now.ram_used = now.ram_total > available ? now.ram_total - available : 0;
  }

  uint64_t pages = 0;
  uint64_t resident = 0;
  if (std::ifstream statm{root_ + "/self/statm"}; statm >> pages >> resident)
    now.process_bytes = resident * static_cast<uint64_t>(::sysconf(_SC_PAGESIZE));
  return now;
}

} // namespace neuroshard
