#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace neuroshard {

/// Overwrites memory in a way the compiler keeps.
void wipe(void* data, size_t bytes) noexcept;

/// Text that is wiped when it goes. Not copyable by accident: copy() says so. Never printed, never logged.
class secret_text {
public:
  secret_text() = default;
  explicit secret_text(std::string_view text);
  secret_text(secret_text&& other) noexcept;
  secret_text& operator=(secret_text&& other) noexcept;
  secret_text(const secret_text&) = delete;
  secret_text& operator=(const secret_text&) = delete;
  ~secret_text();

  std::string_view view() const noexcept { return {data_, size_}; }
  bool empty() const noexcept { return size_ == 0; }
  secret_text copy() const { return secret_text(view()); }

private:
  char* data_ = nullptr;
  size_t size_ = 0;
};

/// 32 bytes of key material, wiped when they go.
class secret_key {
public:
  secret_key() = default;
  secret_key(secret_key&& other) noexcept;
  secret_key& operator=(secret_key&& other) noexcept;
  secret_key(const secret_key&) = delete;
  secret_key& operator=(const secret_key&) = delete;
  ~secret_key();

  secret_key copy() const;
  const uint8_t* data() const noexcept { return bytes_.data(); }
  uint8_t* data() noexcept { return bytes_.data(); }
  static constexpr size_t size() noexcept { return 32; }

private:
  std::array<uint8_t, 32> bytes_{};
};

} // namespace neuroshard
