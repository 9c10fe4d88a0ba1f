#include "gateway/grpc/credentials.hpp"

#include <grpcpp/security/tls_certificate_provider.h>
#include <grpcpp/security/tls_certificate_verifier.h>
#include <grpcpp/security/tls_credentials_options.h>

#include <cstdlib>
#include <string>
#include <utility>
#include <vector>

namespace neuroshard::rpc {

namespace {

namespace tls = grpc::experimental;

class pinning_verifier final : public tls::ExternalCertificateVerifier {
public:
  pinning_verifier(std::optional<kernels::digest> expected, std::shared_ptr<shown_certificate> shown)
      : expected_(std::move(expected)), shown_(std::move(shown)) {}

  bool Verify(tls::TlsCustomVerificationCheckRequest* request, std::function<void(grpc::Status)>,
              grpc::Status* sync_status) override {
    const auto pem = request->peer_cert();
    const auto hash = certificate_hash({pem.data(), pem.size()});
    if (!hash)
      *sync_status = {grpc::StatusCode::UNAUTHENTICATED, "the peer shows no certificate"};
    else if (expected_ && *hash != *expected_)
      *sync_status = {grpc::StatusCode::UNAUTHENTICATED,
                      "the peer shows another certificate than its record names"};
    else
      shown_->set(*hash);
    return true;
  }
  void Cancel(tls::TlsCustomVerificationCheckRequest*) override {}

private:
  std::optional<kernels::digest> expected_;
  std::shared_ptr<shown_certificate> shown_;
};

std::shared_ptr<tls::CertificateProviderInterface> provider_of(const node_certificate& own) {
  return std::make_shared<tls::StaticDataCertificateProvider>(
      std::vector<tls::IdentityKeyCertPair>{{own.key_pem, own.certificate_pem}});
}

} // namespace

void shown_certificate::set(const kernels::digest& hash) {
  const std::lock_guard hold{lock_};
  hash_ = hash;
}

std::optional<kernels::digest> shown_certificate::get() const {
  const std::lock_guard hold{lock_};
  return hash_;
}

std::shared_ptr<grpc::ServerCredentials> server_credentials(const node_certificate& own) {
  tls::TlsServerCredentialsOptions options{provider_of(own)};
  options.watch_identity_key_cert_pairs();
  options.set_cert_request_type(GRPC_SSL_REQUEST_AND_REQUIRE_CLIENT_CERTIFICATE_BUT_DONT_VERIFY);
  return tls::TlsServerCredentials(options);
}

std::shared_ptr<grpc::ChannelCredentials> channel_credentials(const node_certificate& own,
                                                              std::optional<kernels::digest> expected,
                                                              std::shared_ptr<shown_certificate> shown) {
  tls::TlsChannelCredentialsOptions options;
  options.set_certificate_provider(provider_of(own));
  options.watch_identity_key_cert_pairs();
  options.set_verify_server_certs(false);
  options.set_check_call_host(false);
  options.set_certificate_verifier(
      tls::ExternalCertificateVerifier::Create<pinning_verifier>(std::move(expected), std::move(shown)));
  return tls::TlsCredentials(options);
}

void allow_tls_13_only() {
  // The variable names the cipher suites of TLS 1.2 alone, those of 1.3 are always on. This one needs a key
  // that both sides know beforehand, which nobody here has: a handshake of 1.2 finds no suite in common.
  ::setenv("GRPC_SSL_CIPHER_SUITES", "PSK-AES256-GCM-SHA384", 1);
}

} // namespace neuroshard::rpc
