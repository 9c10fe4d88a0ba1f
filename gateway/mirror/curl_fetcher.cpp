#include "gateway/mirror/curl_fetcher.hpp"

#include "kernels/text/mirror_fetch.hpp"

#include <curl/curl.h>

#include <array>
#include <cstdlib>
#include <memory>
#include <utility>

namespace neuroshard {

namespace {

using kernels::code;
using kernels::status;

struct handle_closer {
  void operator()(CURL* handle) const noexcept { curl_easy_cleanup(handle); }
};

// What the callbacks of a transfer share.
struct transfer {
  CURL* handle;
  uint64_t from;
  const text::fetcher::sink& to;
  const std::function<bool()>& cancelled;
  bool begun = false;
  status refused; // by the sink, or by the answer's status
};

status begin(transfer& t) {
  long answer = 0;
  curl_easy_getinfo(t.handle, CURLINFO_RESPONSE_CODE, &answer);
  if (answer != 200 && answer != 206)
    return {code::unavailable, "HTTP status " + std::to_string(answer)};
  t.begun = true;
  // 206 begins where it was asked to, or the SHA-256 will tell.
  return t.to.begin(answer == 206 ? t.from : 0);
}

size_t on_bytes(char* bytes, size_t, size_t count, void* user) {
  auto& t = *static_cast<transfer*>(user);
  if (!t.begun)
    t.refused = begin(t);
  if (t.refused)
    t.refused = t.to.take({reinterpret_cast<const uint8_t*>(bytes), count});
  return t.refused ? count : CURL_WRITEFUNC_ERROR;
}

int on_progress(void* user, curl_off_t, curl_off_t, curl_off_t, curl_off_t) {
  return static_cast<transfer*>(user)->cancelled() ? 1 : 0;
}

class curl_fetcher final : public text::fetcher {
public:
  curl_fetcher(std::string agent, trusted_authorities trust, fetch_limits limits)
      : agent_(std::move(agent)), trust_(std::move(trust)), limits_(limits) {}

  status get(const std::string& url, uint64_t from, const sink& to,
             const std::function<bool()>& cancelled) override {
    const std::unique_ptr<CURL, handle_closer> owner(curl_easy_init());
    CURL* const c = owner.get();
    if (c == nullptr)
      return {code::out_of_memory, "no memory for a transfer"};
    const bool tls = url.starts_with("https://");
    transfer t{c, from, to, cancelled, false, {}};
    std::array<char, CURL_ERROR_SIZE> problem{};
    const std::string range = std::to_string(from) + "-";
    curl_easy_setopt(c, CURLOPT_URL, url.c_str());
    curl_easy_setopt(c, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(c, CURLOPT_FOLLOWLOCATION, 1L);
    curl_easy_setopt(c, CURLOPT_REDIR_PROTOCOLS_STR, tls ? "https" : "http,https");
    curl_easy_setopt(c, CURLOPT_MAXREDIRS, static_cast<long>(limits_.redirects_max));
    curl_easy_setopt(c, CURLOPT_SSL_VERIFYPEER, 1L);
    curl_easy_setopt(c, CURLOPT_SSL_VERIFYHOST, 2L);
    if (!trust_.file.empty())
      curl_easy_setopt(c, CURLOPT_CAINFO, trust_.file.c_str());
    if (!trust_.folder.empty())
      curl_easy_setopt(c, CURLOPT_CAPATH, trust_.folder.c_str());
    curl_easy_setopt(c, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(c, CURLOPT_USERAGENT, agent_.c_str());
    curl_easy_setopt(c, CURLOPT_CONNECTTIMEOUT, static_cast<long>(limits_.connect.count()));
    curl_easy_setopt(c, CURLOPT_TIMEOUT, static_cast<long>(limits_.whole.count()));
    curl_easy_setopt(c, CURLOPT_LOW_SPEED_TIME, static_cast<long>(limits_.slow.count()));
    curl_easy_setopt(c, CURLOPT_LOW_SPEED_LIMIT, static_cast<long>(limits_.bytes_per_second_min));
    curl_easy_setopt(c, CURLOPT_ERRORBUFFER, problem.data());
    curl_easy_setopt(c, CURLOPT_WRITEFUNCTION, &on_bytes);
    curl_easy_setopt(c, CURLOPT_WRITEDATA, &t);
    curl_easy_setopt(c, CURLOPT_NOPROGRESS, 0L);
    curl_easy_setopt(c, CURLOPT_XFERINFOFUNCTION, &on_progress);
    curl_easy_setopt(c, CURLOPT_XFERINFODATA, &t);
    if (from > 0)
      curl_easy_setopt(c, CURLOPT_RANGE, range.c_str());
    const CURLcode outcome = curl_easy_perform(c);
    const auto named = [&](const std::string& why) {
      return status{code::unavailable, text::shown_url(url) + ": " + why};
    };
    if (!t.refused && !t.begun) // the answer's status
      return named(t.refused.message());
    if (!t.refused)
      return t.refused;
    if (outcome == CURLE_UNSUPPORTED_PROTOCOL || outcome == CURLE_URL_MALFORMAT)
      return {code::invalid_argument, text::shown_url(url) + ": " + curl_easy_strerror(outcome)};
    if (outcome == CURLE_ABORTED_BY_CALLBACK)
      return named("cancelled");
    if (outcome != CURLE_OK)
      return named(problem[0] != '\0' ? problem.data() : curl_easy_strerror(outcome));
    if (!t.begun) { // an answer without a body
      const status why = begin(t);
      return why || t.begun ? why : named(why.message());
    }
    return {};
  }

private:
  std::string agent_;
  trusted_authorities trust_;
  fetch_limits limits_;
};

} // namespace

trusted_authorities authorities_of_environment() {
  const auto value = [](const char* name) {
    const char* found = std::getenv(name);
    return std::string(found != nullptr ? found : "");
  };
  return {value("SSL_CERT_FILE"), value("SSL_CERT_DIR")};
}

std::shared_ptr<text::fetcher> make_curl_fetcher(std::string agent, trusted_authorities trust,
                                                 fetch_limits limits) {
  static const CURLcode ready = curl_global_init(CURL_GLOBAL_DEFAULT); // once; safe among threads since 7.84
  static_cast<void>(ready);
  return std::make_shared<curl_fetcher>(std::move(agent), std::move(trust), limits);
}

} // namespace neuroshard
