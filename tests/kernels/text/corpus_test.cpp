#include "kernels/text/corpus.hpp"

#include "tests/kernels/text/temporary_directory.hpp"
#include "tests/support/test.hpp"

#include <filesystem>
#include <string>
#include <sys/stat.h>
#include <vector>

using namespace neuroshard;
using namespace neuroshard::text;

namespace {

using strings = std::vector<std::string>;

strings documents(const std::string& path) {
  const auto from = open_corpus(path);
  REQUIRE(from.ok());
  strings out;
  for (size_t file = 0; file < from->files.size(); ++file)
    REQUIRE(read_documents(*from, file, [&](std::string_view document, size_t) {
              out.emplace_back(document);
              return kernels::status{};
            }).ok());
  return out;
}

kernels::status reading_error(const std::string& path) {
  const auto from = open_corpus(path);
  if (!from.ok())
    return from.status();
  return read_documents(*from, 0, [](std::string_view, size_t) { return kernels::status{}; });
}

} // namespace

TEST_CASE("sections of a text file are documents") {
  const test::temporary_directory d;
  d.write("a.txt", "\n\nfirst\nsecond line\n \t\r\n\n  third\n\nlast");
  CHECK(documents(d.path("a.txt")) == strings{"first\nsecond line", "  third", "last"});
  d.write("crlf.txt", "one\r\ntwo\r\n\r\nthree\r\n");
  CHECK(documents(d.path("crlf.txt")) == strings{"one\r\ntwo", "three"});
  d.write("bom.txt", "\xEF\xBB\xBFx");
  CHECK(documents(d.path("bom.txt")) == strings{"x"});
}

TEST_CASE("lines of a jsonl file are documents") {
  const test::temporary_directory d;
  d.write("a.jsonl", "{\"id\":1,\"text\":\"one\\n\\ntwo\"}\n\n\"bare\"\r\n{\"text\":\"\"}\n{\"text\":"
                     "\"e\\u0301\",\"x\":[{}]}");
  CHECK(documents(d.path("a.jsonl")) == strings{"one\n\ntwo", "bare", "\xC3\xA9"});
}

TEST_CASE("a broken jsonl line is named by file and line") {
  const test::temporary_directory d;
  const strings bad{
      "{\"text\":1}",           "{}", "[1]", "7", "{\"text\":\"a\"", "{\"text\":\"\\ud800\"}", "\"a\" \"b\"",
      std::string(100'000, '[')};
  for (const std::string& line : bad) {
    d.write("a.jsonl", "\"good\"\n" + line + "\n");
    const auto problem = reading_error(d.path("a.jsonl"));
    CHECK(problem.why() == kernels::code::corrupt);
    CHECK(problem.message().find("a.jsonl: line 2: ") != std::string::npos);
    CHECK(problem.message().find('\n') == std::string::npos);
  }
}

TEST_CASE("documents are normalized and keep bytes that are no UTF-8") {
  const test::temporary_directory d;
  d.write("a.txt", "cafe\xCC\x81 \xFF\xFE");
  CHECK(documents(d.path("a.txt")) == strings{"caf\xC3\xA9 \xFF\xFE"});
}

TEST_CASE("a directory is read recursively, in order, and without other files") {
  const test::temporary_directory d;
  d.write("b.txt", "b");
  d.write("a/z.txt", "az");
  d.write("a/a.jsonl", "\"aa\"");
  d.write("c/deep/er/x.txt", "x");
  d.write("notes.md", "no");
  d.write(".hidden/x.txt", "no");
  d.write(".secret.txt", "no");
  CHECK(documents(d.path()) == strings{"aa", "az", "b", "x"});
}

TEST_CASE("loops of links end and dangling links are passed over") {
  const test::temporary_directory d;
  d.write("a/x.txt", "x");
  std::filesystem::create_directory_symlink(d.path(), d.path("a/up"));
  std::filesystem::create_directory_symlink(d.path("a"), d.path("b"));
  std::filesystem::create_symlink(d.path("nowhere"), d.path("gone.txt"));
  CHECK(documents(d.path()) == strings{"x"});
}

TEST_CASE("what is no corpus gives one line that says why") {
  const test::temporary_directory d;
  CHECK(open_corpus(d.path("none")).status().why() == kernels::code::io);
  CHECK(open_corpus(d.path("none")).status().message().find("none: cannot be read: No such file") !=
        std::string::npos);
  CHECK(open_corpus(d.path()).status().message().find("holds no .txt or .jsonl file") != std::string::npos);
  d.write("empty.txt", "");
  CHECK(open_corpus(d.path()).status().message().find("is empty") != std::string::npos);
  d.write("big.txt", "0123456789");
  corpus_limits limits;
  limits.file_bytes_max = 9;
  CHECK(open_corpus(d.path(), limits).status().message().find("split it") != std::string::npos);
  limits = {};
  limits.files_max = 1;
  CHECK(open_corpus(d.path(), limits).status().message().find("more than 1 text files") != std::string::npos);
  limits = {};
  limits.depth_max = 2;
  d.write("1/2/3/x.txt", "x");
  CHECK(open_corpus(d.path(), limits).status().message().find("nested") != std::string::npos);
  REQUIRE(::mkfifo(d.path("pipe").c_str(), 0600) == 0);
  CHECK(open_corpus(d.path("pipe")).status().why() == kernels::code::io);
}

TEST_CASE("a file that vanishes after it was listed is an error, not a crash") {
  const test::temporary_directory d;
  d.write("a.txt", "x");
  const auto from = open_corpus(d.path());
  REQUIRE(from.ok());
  std::filesystem::remove(d.path("a.txt"));
  CHECK(read_documents(*from, 0, [](std::string_view, size_t) { return kernels::status{}; }).why() ==
        kernels::code::io);
}

TEST_CASE("the fingerprint changes with names, sizes and times") {
  const test::temporary_directory d;
  d.write("a.txt", "x");
  const auto first = open_corpus(d.path())->fingerprint;
  CHECK(open_corpus(d.path())->fingerprint == first);
  d.write("a.txt", "xy");
  const auto second = open_corpus(d.path())->fingerprint;
  CHECK(second != first);
  d.write("b.txt", "z");
  CHECK(open_corpus(d.path())->fingerprint != second);
}
