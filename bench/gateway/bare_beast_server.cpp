#include <utility> // before Boost 1.74's awaitable.hpp, which lacks it

#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/beast/core.hpp>
#include <boost/beast/http.hpp>

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

/// What Boost.Beast gives with nothing around it: the yardstick of gateway_bench. Answers every request with
/// the same bytes. One io_context per thread, which is the faster way; the usual Beast calls, without
/// time-outs.
///
///   bare_beast_server PORT THREADS BODY_FILE
namespace {

namespace beast = boost::beast;
namespace http = boost::beast::http;
using tcp = boost::asio::ip::tcp;

std::string body;

class session : public std::enable_shared_from_this<session> {
public:
  explicit session(tcp::socket socket) : stream_(std::move(socket)) {}
  void read() {
    request_ = {};
    http::async_read(stream_, buffer_, request_, [me = shared_from_this()](beast::error_code ec, size_t) {
      ec ? me->end() : me->answer();
    });
  }

private:
  void answer() {
    response_.emplace(http::status::ok, request_.version());
    response_->set(http::field::content_type, "application/json");
    response_->set(http::field::date, "Fri, 15 Jan 2027 08:00:00 GMT");
    response_->set("X-Request-Id", "0123456789abcdef0123456789abcdef");
    response_->keep_alive(request_.keep_alive());
    response_->body() = body;
    response_->prepare_payload();
    http::async_write(stream_, *response_, [me = shared_from_this()](beast::error_code ec, size_t) {
      ec || !me->response_->keep_alive() ? me->end() : me->read();
    });
  }
  void end() {
    beast::error_code ec;
    stream_.socket().shutdown(tcp::socket::shutdown_send, ec);
  }
  beast::tcp_stream stream_;
  beast::flat_buffer buffer_;
  http::request<http::string_body> request_;
  std::optional<http::response<http::string_body>> response_;
};

std::vector<std::unique_ptr<boost::asio::io_context>> contexts;
size_t next_context = 0;

void accept(tcp::acceptor& from) {
  auto& target = *contexts[next_context++ % contexts.size()];
  from.async_accept(target, [&from](beast::error_code ec, tcp::socket socket) {
    if (!ec) {
      socket.set_option(tcp::no_delay(true), ec);
      std::make_shared<session>(std::move(socket))->read();
    }
    accept(from);
  });
}

} // namespace

int main(int argc, char** argv) {
  if (argc != 4) {
    std::fprintf(stderr, "usage: bare_beast_server PORT THREADS BODY_FILE\n");
    return 1;
  }
  std::ifstream file(argv[3], std::ios::binary);
  body.assign(std::istreambuf_iterator<char>(file), {});
  const int threads = std::max(std::atoi(argv[2]), 1);
  for (int i = 0; i < threads; ++i)
    contexts.push_back(std::make_unique<boost::asio::io_context>(1));
  tcp::acceptor acceptor(*contexts[0], {boost::asio::ip::make_address("127.0.0.1"),
                                        static_cast<unsigned short>(std::atoi(argv[1]))});
  accept(acceptor);
  std::vector<std::thread> running;
  for (size_t i = 1; i < contexts.size(); ++i)
    running.emplace_back([i] {
      const auto busy = boost::asio::make_work_guard(*contexts[i]);
      contexts[i]->run();
    });
  std::printf("listening\n");
  std::fflush(stdout);
  contexts[0]->run();
}
