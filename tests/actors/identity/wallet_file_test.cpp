#include "actors/identity/wallet_file.hpp"

#include "actors/identity/keys.hpp"
#include "tests/support/test.hpp"

#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>

using namespace neuroshard;

namespace {

struct folder {
  std::string path;
  folder() {
    char name[] = "/tmp/neuroshard-wallet-XXXXXX";
    REQUIRE(::mkdtemp(name) != nullptr);
    path = name;
  }
  ~folder() { std::filesystem::remove_all(path); }
  std::string file(const char* name) const { return path + "/" + name; }
  std::string write(const char* name, std::string_view text, mode_t mode = 0600) const {
    std::ofstream(file(name), std::ios::binary) << text;
    ::chmod(file(name).c_str(), mode);
    return file(name);
  }
};

std::string read_all(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

constexpr const char* words =
    "abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon about";
constexpr const char* address = "0xd72992fd962a53bbab62f8710b11e0f78b7c44fc";
constexpr const char* token_hex = "5eb00bbddcf069084889a8ab9155568165f5c453ccb85e70811aaed6f6da5fc1";

} // namespace

TEST_CASE_FIXTURE(folder, "a wallet file reads back, holds no words and belongs to its owner alone") {
  const auto token = parse_token(words);
  REQUIRE(!write_wallet_file(file("wallet.json"), *token, address));
  struct stat info {};
  REQUIRE(::stat(file("wallet.json").c_str(), &info) == 0);
  CHECK((info.st_mode & 0777) == 0600);
  CHECK(read_all(file("wallet.json")).find("abandon") == std::string::npos);
  const auto back = read_wallet_file(file("wallet.json"));
  REQUIRE(back);
  CHECK(back->token.canonical.view() == token_hex);
  CHECK(back->address == address);
  CHECK(std::distance(std::filesystem::directory_iterator(path), {}) == 1);
}

TEST_CASE_FIXTURE(folder, "a wallet is never overwritten") {
  const auto first = parse_token(words), second = parse_token(std::string(64, 'b'));
  REQUIRE(!write_wallet_file(file("wallet.json"), *first, address));
  const std::string before = read_all(file("wallet.json"));
  const auto again =
      write_wallet_file(file("wallet.json"), *second, address_of(wallet_key(std::string(64, 'b'))->pub));
  CHECK(code_of(again) == errc::already_exists);
  CHECK(read_all(file("wallet.json")) == before);
  CHECK(std::distance(std::filesystem::directory_iterator(path), {}) == 1);
}

TEST_CASE_FIXTURE(folder, "a wallet file that others can read is refused") {
  const auto token = parse_token(words);
  REQUIRE(!write_wallet_file(file("wallet.json"), *token, address));
  for (const mode_t mode : {0640, 0604, 0660, 0666, 0610}) {
    ::chmod(file("wallet.json").c_str(), mode);
    const auto back = read_wallet_file(file("wallet.json"));
    REQUIRE(!back);
    CHECK(code_of(back.error()) == errc::forbidden);
    CHECK(problem_of(back.error()).reason == "mode");
  }
  ::chmod(file("wallet.json").c_str(), 0400);
  CHECK(read_wallet_file(file("wallet.json")));
}

TEST_CASE_FIXTURE(folder, "a damaged wallet file is named, and its secret is not") {
  const std::string good =
      std::string("{\"version\":1,\"token\":\"") + token_hex + "\",\"address\":\"" + address + "\"}";
  REQUIRE(read_wallet_file(write("good.json", good)));
  const auto code = [&](std::string_view text) {
    const auto back = read_wallet_file(write("bad.json", text));
    REQUIRE(!back);
    CHECK(problem_of(back.error()).message.find("bad.json") != std::string::npos);
    CHECK(problem_of(back.error()).message.find("5eb00") == std::string::npos);
    return code_of(back.error());
  };
  CHECK(code("") == errc::data_loss);
  CHECK(code("{}") == errc::data_loss);
  CHECK(code("[1,2]") == errc::data_loss);
  CHECK(code(good.substr(0, good.size() / 2)) == errc::data_loss);
  CHECK(code(good + "x") == errc::data_loss);
  CHECK(code(std::string(200'000, ' ')) == errc::data_loss);
  CHECK(code(std::string(30'000, '[')) == errc::data_loss);
  CHECK(code(std::string("{\"version\":2,") + good.substr(13)) == errc::data_loss);
  CHECK(code(std::string("{\"version\":1,\"token\":\"") + std::string(64, 'b') + "\",\"address\":\"" +
             address + "\"}") == errc::data_loss);
  CHECK(code(std::string("{\"version\":1,\"token\":7,\"address\":\"") + address + "\"}") == errc::data_loss);
}

TEST_CASE_FIXTURE(folder, "a file that is not there, or is no file, says so") {
  CHECK(code_of(read_wallet_file(file("none.json")).error()) == errc::not_found);
  CHECK(code_of(read_wallet_file(path).error()) == errc::storage);
  REQUIRE(::mkfifo(file("pipe").c_str(), 0600) == 0);
  CHECK(code_of(read_wallet_file(file("pipe")).error()) == errc::storage);
  const auto token = parse_token(words);
  CHECK(code_of(write_wallet_file(file("no/such/folder/wallet.json"), *token, address)) == errc::storage);
}

TEST_CASE_FIXTURE(folder, "a token file is read whatever blanks surround the token") {
  const auto token = read_token_file(write("token", "\n  correct-horse \n"));
  REQUIRE(token);
  CHECK(token->canonical.view() == "correct-horse");
  CHECK(code_of(read_token_file(write("open", "correct-horse", 0644)).error()) == errc::forbidden);
  CHECK(code_of(read_token_file(write("empty", "")).error()) == errc::unauthorized);
}

TEST_CASE_FIXTURE(folder, "the backup words go to a file of their own") {
  REQUIRE(!write_secret_file(file("wallet-backup.txt"), "a b c\n"));
  CHECK(read_all(file("wallet-backup.txt")) == "a b c\n");
  CHECK(code_of(write_secret_file(file("wallet-backup.txt"), "d")) == errc::already_exists);
}
