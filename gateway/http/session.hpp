#pragma once

#include "gateway/http/io_lane.hpp"

#include <boost/asio/ip/tcp.hpp>

namespace boost::asio::ssl {
class context;
}

/// Private to the server: makes sessions. Each kind of stream has a translation unit of its own
/// (plain_session.cpp, tls_session.cpp), both from session_impl.hpp.
namespace neuroshard::http {

/// `refused`: too many connections; the session only says so. The socket belongs to the lane's context.
std::shared_ptr<session_base> make_plain_session(const std::shared_ptr<io_lane>& home,
                                                 boost::asio::ip::tcp::socket socket, bool refused);
std::shared_ptr<session_base> make_tls_session(const std::shared_ptr<io_lane>& home,
                                               boost::asio::ip::tcp::socket socket,
                                               boost::asio::ssl::context& tls, bool refused);

} // namespace neuroshard::http
