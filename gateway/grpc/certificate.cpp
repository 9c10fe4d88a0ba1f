#include "gateway/grpc/certificate.hpp"

#include "actors/common/error.hpp"

#include <openssl/bio.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/x509.h>

#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <memory>
#include <sys/stat.h>
#include <unistd.h>

namespace neuroshard::rpc {

namespace {

template <auto Free>
struct freed_by {
  template <class T>
  void operator()(T* object) const noexcept {
    Free(object);
  }
};
using bio_ptr = std::unique_ptr<BIO, freed_by<BIO_free_all>>;
using key_ptr = std::unique_ptr<EVP_PKEY, freed_by<EVP_PKEY_free>>;
using certificate_ptr = std::unique_ptr<X509, freed_by<X509_free>>;

constexpr size_t pem_bytes_max = 64 * 1024;
constexpr long century_s = 100L * 365 * 86'400;

caf::error unusable(const std::string& file, const std::string& why) {
  return refuse(errc::storage, "The certificate between nodes: " + file + ": " + why);
}

certificate_ptr read_certificate(std::string_view pem) {
  const bio_ptr in{BIO_new_mem_buf(pem.data(), static_cast<int>(pem.size()))};
  return certificate_ptr{in ? PEM_read_bio_X509(in.get(), nullptr, nullptr, nullptr) : nullptr};
}

std::optional<kernels::digest> hash_of(X509* certificate) {
  kernels::digest hash{};
  unsigned size = 0;
  if (X509_digest(certificate, EVP_sha256(), hash.data(), &size) != 1 || size != hash.size())
    return std::nullopt;
  return hash;
}

std::string text_of(BIO* from) {
  char* bytes = nullptr;
  const long size = BIO_get_mem_data(from, &bytes);
  return {bytes, static_cast<size_t>(size)};
}

/// Nothing when there is no such file.
caf::expected<std::optional<std::string>> read_file(const std::string& path) {
  const int file = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (file < 0 && errno == ENOENT)
    return std::optional<std::string>{};
  if (file < 0)
    return unusable(path, std::strerror(errno));
  std::string text(pem_bytes_max, '\0');
  const ssize_t got = ::read(file, text.data(), text.size());
  const int why = errno;
  ::close(file);
  if (got < 0)
    return unusable(path, std::strerror(why));
  text.resize(static_cast<size_t>(got));
  return std::optional<std::string>{std::move(text)};
}

caf::error write_file(const std::string& path, std::string_view text, mode_t mode) {
  const std::string next = path + ".new";
  const int file = ::open(next.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, mode);
  if (file < 0)
    return unusable(next, std::strerror(errno));
  const bool written = ::fchmod(file, mode) == 0 &&
                       ::write(file, text.data(), text.size()) == static_cast<ssize_t>(text.size()) &&
                       ::fsync(file) == 0;
  const int why = errno;
  ::close(file);
  if (!written || ::rename(next.c_str(), path.c_str()) != 0)
    return unusable(path, std::strerror(written ? errno : why));
  return {};
}

/// Self-signed, for a century: its dates say nothing.
caf::expected<node_certificate> make_certificate(const std::string& folder) {
  const key_ptr key{EVP_EC_gen("P-256")};
  const certificate_ptr certificate{X509_new()};
  uint64_t serial = 0;
  if (!key || !certificate || RAND_bytes(reinterpret_cast<unsigned char*>(&serial), sizeof serial) != 1)
    return unusable(folder, "no key could be made");
  X509* const x = certificate.get();
  X509_NAME* const name = X509_get_subject_name(x);
  const auto* common = reinterpret_cast<const unsigned char*>("neuroshard");
  const bool made = X509_set_version(x, 2) == 1 &&
                    ASN1_INTEGER_set_uint64(X509_get_serialNumber(x), serial >> 1 | 1) == 1 &&
                    X509_gmtime_adj(X509_getm_notBefore(x), -86'400) != nullptr &&
                    X509_gmtime_adj(X509_getm_notAfter(x), century_s) != nullptr &&
                    X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC, common, -1, -1, 0) == 1 &&
                    X509_set_issuer_name(x, name) == 1 && X509_set_pubkey(x, key.get()) == 1 &&
                    X509_sign(x, key.get(), EVP_sha256()) != 0;
  const bio_ptr certificate_out{BIO_new(BIO_s_mem())}, key_out{BIO_new(BIO_s_secmem())};
  const auto hash = made ? hash_of(x) : std::nullopt;
  if (!hash || PEM_write_bio_X509(certificate_out.get(), x) != 1 ||
      PEM_write_bio_PrivateKey(key_out.get(), key.get(), nullptr, nullptr, 0, nullptr, nullptr) != 1)
    return unusable(folder, "no certificate could be made");
  return node_certificate{text_of(certificate_out.get()), text_of(key_out.get()), *hash};
}

} // namespace

std::optional<kernels::digest> certificate_hash(std::string_view pem) {
  const auto certificate = pem.size() <= pem_bytes_max ? read_certificate(pem) : nullptr;
  return certificate ? hash_of(certificate.get()) : std::nullopt;
}

caf::expected<node_certificate> load_or_make_certificate(const std::string& folder) {
  const std::string certificate_file = folder + "/node.crt", key_file = folder + "/node.key";
  if (::mkdir(folder.c_str(), 0700) != 0 && errno != EEXIST)
    return unusable(folder, std::strerror(errno));
  auto certificate = read_file(certificate_file);
  if (!certificate)
    return certificate.error();
  auto key = read_file(key_file);
  if (!key)
    return key.error();
  if (!*certificate || !*key) {
    // One of the two alone is what a crash between both writes leaves; nobody has seen it yet.
    auto made = make_certificate(folder);
    if (!made)
      return made;
    if (auto why = write_file(key_file, made->key_pem, 0600))
      return why;
    if (auto why = write_file(certificate_file, made->certificate_pem, 0644))
      return why;
    return made;
  }
  const auto read = read_certificate(**certificate);
  if (!read)
    return unusable(certificate_file, "is not a certificate; remove it and its key to have new ones made");
  const bio_ptr in{BIO_new_mem_buf((*key)->data(), static_cast<int>((*key)->size()))};
  const key_ptr secret{in ? PEM_read_bio_PrivateKey(in.get(), nullptr, nullptr, nullptr) : nullptr};
  if (!secret || X509_check_private_key(read.get(), secret.get()) != 1)
    return unusable(key_file, "is not the certificate's key; remove both to have new ones made");
  const auto hash = hash_of(read.get());
  if (!hash)
    return unusable(certificate_file, "cannot be read");
  return node_certificate{std::move(**certificate), std::move(**key), *hash};
}

} // namespace neuroshard::rpc
