#!/usr/bin/env python3
"""Turns what Debian ships into one plain text for training; called by make_corpus.

corpus_text.py [--kjv VERSES] [--austen RDB] OUTPUT
    VERSES  the output of `bible -f`
    RDB     Rdata.rdb of r-cran-janeaustenr

Each chapter of every source is a document; documents are separated by a blank line. They stand in the order of the SHA-256
of their UTF-8 bytes: training cuts the corpus into contiguous shards and holds its last part out, so in the printed order
each shard would be one style and the held-out part another than was learned from. The order by digest is as good as random
(every shard, and the held-out part, is a fair sample of all books) and needs no seed: the same sources give the same bytes
everywhere. Python's standard library only.
"""

import argparse
import hashlib
import os
import re
import struct
import sys
import zlib

VERSE = re.compile(r"^([1-3]?[A-Za-z]+[0-9]+):[0-9]+ +(.*)$")  # "Ge1:1 In the beginning ..."
VOLUME = re.compile(r"^volume\s+[ivxlc0-9]+\.?$", re.IGNORECASE)
CHAPTER = re.compile(r"^chapter\s+[ivxlc0-9]+\.?$", re.IGNORECASE)
END = re.compile(r"^(finis|the end)\.?$", re.IGNORECASE)
AFTERWORD = "A NOTE ON THE TEXT"  # of a modern edition, not of the novel
TITLE_WORDS_MAX = 12  # paragraphs before the first chapter: shorter ones are title, author and year
RECORD_BYTES_MAX = 64 << 20
LINES_MAX = 10_000_000


class BadInput(Exception):
    """What was read is not what Debian ships; the text says where."""


def write(path, documents):
    """Writes the documents in the order of their digests, so that they are on the disk on return."""
    texts = sorted((document.encode("utf-8") for document in documents), key=lambda text: hashlib.sha256(text).digest())
    with open(path, "wb") as file:
        file.write(b"\n\n".join(texts) + b"\n")
        file.flush()
        os.fsync(file.fileno())


def kjv_chapters(lines):
    """One document per chapter, its verses joined by blanks."""
    chapters, current, verses = [], None, []
    for number, line in enumerate(lines, 1):
        line = line.strip()
        if not line:
            continue
        match = VERSE.match(line)
        if not match:
            raise BadInput(f"line {number} has no reference in front: {line[:60]!r}")
        if match.group(1) != current:
            if verses:
                chapters.append(" ".join(verses))
            current, verses = match.group(1), []
        verses.append(" ".join(match.group(2).split()))
    if verses:
        chapters.append(" ".join(verses))
    return chapters


def records(data):
    """The unpacked records of an .rdb file: each is a big-endian u32 length and a zlib stream."""
    at = 0
    while at < len(data):
        if at + 4 > len(data):
            raise BadInput(f"ends inside the length at byte {at}")
        (length,) = struct.unpack_from(">I", data, at)
        if length > RECORD_BYTES_MAX:
            raise BadInput(f"record at byte {at} claims {length} bytes")
        stream = zlib.decompressobj()
        try:
            content = stream.decompress(data[at + 4 :], length + 1)
        except zlib.error as problem:
            raise BadInput(f"record at byte {at}: {problem}") from None
        if len(content) != length or not stream.eof:
            raise BadInput(f"record at byte {at} does not have the {length} bytes it claims")
        yield content
        at = len(data) - len(stream.unused_data)


class XdrReader:
    """Reads R's serialization in XDR form, as far as a character vector needs it (R Internals, section 1.8)."""

    STRSXP, CHARSXP = 16, 9

    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, count):
        if count < 0 or self.at + count > len(self.data):
            raise BadInput(f"R data ends early, at byte {self.at}")
        self.at += count
        return self.data[self.at - count : self.at]

    def number(self):
        return struct.unpack(">i", self.take(4))[0]

    def character_vector(self):
        if self.take(2) != b"X\n":
            raise BadInput("not R data in XDR form")
        version = self.number()
        self.take(8)  # versions of R: that wrote it, that can read it
        if version == 3:
            self.take(self.number())  # the name of the native encoding
        elif version != 2:
            raise BadInput(f"R serialization version {version}")
        if self.number() & 0xFF != self.STRSXP:
            raise BadInput("not a character vector")
        count = self.number()
        if not 0 <= count <= LINES_MAX:
            raise BadInput(f"a vector of {count} lines")
        lines = []
        for _ in range(count):
            if self.number() & 0xFF != self.CHARSXP:
                raise BadInput(f"not a string, at byte {self.at}")
            length = self.number()
            lines.append("" if length == -1 else self.take(length).decode("utf-8", "replace"))  # -1: missing
        return lines


def paragraphs(lines):
    """Joins wrapped lines; empty lines separate paragraphs. Emphasis marks and rows of asterisks go."""
    words = []
    for line in [*lines, ""]:
        if line.strip():
            words.extend(line.split())
            continue
        text = re.sub(r"_([^_]*)_", r"\1", " ".join(words))
        if text.strip("* "):
            yield text
        words = []


def novel_chapters(lines):
    """One document per chapter: heading and paragraphs, a line each. Title page and afterword are left out."""
    chapters, current, in_book = [], [], False
    for text in paragraphs(lines):
        if text == AFTERWORD:
            break
        if VOLUME.match(text) or END.match(text):
            continue
        if CHAPTER.match(text):
            if current:
                chapters.append("\n".join(current))
            current, in_book = [text], True
        elif in_book or len(text.split()) > TITLE_WORDS_MAX:
            current.append(text)
    if current:
        chapters.append("\n".join(current))
    return chapters


def kjv(path):
    """The chapters of the Bible."""
    with open(path, encoding="utf-8", errors="replace") as file:
        chapters = kjv_chapters(file)
    if not chapters:
        raise BadInput("no text in it")
    return chapters


def austen(path):
    """The chapters of all novels."""
    with open(path, "rb") as file:
        data = file.read()
    novels = [novel_chapters(XdrReader(record).character_vector()) for record in records(data)]
    if not novels or not all(novels):
        raise BadInput("no text in it")
    return [chapter for chapters in novels for chapter in chapters]


def main():
    parser = argparse.ArgumentParser(description="Turns what Debian ships into one plain text for training.")
    parser.add_argument("--kjv", metavar="VERSES", help="the output of `bible -f`")
    parser.add_argument("--austen", metavar="RDB", help="Rdata.rdb of r-cran-janeaustenr")
    parser.add_argument("output", help="the file to write")
    given = parser.parse_args()
    if not given.kjv and not given.austen:
        parser.error("give at least one source")
    documents, source = [], None
    try:
        for source, read in ((given.kjv, kjv), (given.austen, austen)):
            if source:
                documents += read(source)
        source = given.output
        write(given.output, documents)
    except (BadInput, OSError) as problem:
        print(f"corpus_text.py: {source}: {problem}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
