#include "tests/actors/checkpointer/checkpoint_stream_support.hpp"
#include "tests/support/ask.hpp"
#include "tests/support/checkpoint_network.hpp"
#include "tests/support/deterministic_fixture.hpp"
#include "tests/support/manual_clock.hpp"
#include "tests/support/small_disk.hpp"

#include <cstdlib>
#include <random>

using namespace neuroshard;
using namespace neuroshard::test;

namespace {

struct fetch_fixture
    : deterministic<caf::id_block::neuroshard_common, caf::id_block::neuroshard_status,
                    caf::id_block::neuroshard_layer_worker, caf::id_block::neuroshard_peer_manager,
                    caf::id_block::neuroshard_peer_link, caf::id_block::neuroshard_checkpoint_stream> {
  served_place place; ///< what the honest ones have
  std::shared_ptr<manual_clock> clock = std::make_shared<manual_clock>();
  checkpoint_network_ptr network = std::make_shared<checkpoint_network>();
  std::vector<std::shared_ptr<const node_identity>> nodes;
  std::vector<peer_address> addresses;
  std::string newest = place.write_with_velocity(200, 1);
  checkpoint_receiver_actor receiver;

  fetch_fixture() {
    clock->set_unix_us(system_time()->unix_us()); // files have the real time
    for (unsigned i = 0; i < 3; ++i) {
      nodes.push_back(make_identity(i));
      addresses.push_back(
          {nodes.back()->node_id(), "10.0.0." + std::to_string(i + 1) + ":9000", std::nullopt});
      network->servers[addresses.back().address] = serve(place, i);
    }
    receiver = receive(place.receiver_options());
  }
  ~fetch_fixture() { network->servers.clear(); }
  checkpoint_server_actor serve(const served_place& from, unsigned number) {
    return keep(sys.spawn(checkpoint_server, from.server_options(), nodes[number], time_source_ptr{clock}));
  }
  checkpoint_receiver_actor receive(checkpoint_receiver_options options) {
    auto link = keep(sys.spawn(network_checkpoint_link, network, std::string(32, 'f')));
    return keep(sys.spawn(checkpoint_receiver, std::move(options),
                          checkpoint_receiver_parts{link, time_source_ptr{clock}, system_random()}));
  }
  fetch_units wish(const std::vector<std::string>& units = {}) const {
    fetch_units what;
    what.candidates = addresses;
    what.version = 2;
    what.expected = place.announced(newest, units);
    what.include_velocity = true;
    what.include_tokenizer = true;
    return what;
  }
  answer<fetched_units> fetch(fetch_units what) {
    auto pending = ask_later<fetched_units>(*this, receiver, std::move(what));
    sched.run();
    while (sched.has_pending_timeout()) { // backing off
      const auto before = network->calls.size();
      sched.trigger_timeout();
      sched.run();
      if (network->calls.size() == before && !running())
        break;
    }
    return pending.receive();
  }
  bool running() {
    const auto now = ask<actor_status>(*this, receiver, status_atom_v);
    return now->values.front().second == "1";
  }
  void check_content(const fetched_units& got, float salt = 1) {
    std::map<std::string, worker_script::held_tensor> expected;
    for (auto& [name, tensor] : tiny_tensors(salt))
      expected[name] = tensor;
    size_t weights = 0, velocities = 0;
    for (const auto& entry : got.tensors) {
      auto tensor = ask<tensor_handle>(*this, receiver, read_fetched{got.fetch_id, entry.name});
      REQUIRE(tensor);
      if (entry.name == tokenizer_unit) {
        const std::string bytes(tensor->view.as<char>(), entry.bytes);
        CHECK(bytes == file_text(place.tokenizer_path));
        continue;
      }
      const bool velocity = entry.name.starts_with(velocity_prefix);
      ++(velocity ? velocities : weights);
      auto want = expected[velocity ? entry.name.substr(9) : entry.name].values;
      if (velocity)
        for (auto& value : want)
          value += 9.0F;
      const auto* values = tensor->view.as<float>();
      CHECK(std::vector<float>(values, values + want.size()) == want);
    }
    CHECK(weights > 0);
    CHECK(weights == velocities);
  }
};

uint32_t test_seed() {
  const char* given = std::getenv("NEUROSHARD_TEST_SEED");
  return given != nullptr ? static_cast<uint32_t>(std::strtoul(given, nullptr, 10)) : std::random_device{}();
}

} // namespace

TEST_CASE_FIXTURE(
    fetch_fixture,
    "a node with another tokenizer fetches the network's alone, from any outer step, by its hash") {
  auto options = place.receiver_options();
  options.tokenizer_hash = std::string(64, 'b');
  receiver = receive(std::move(options));
  fetch_units what;
  what.candidates = addresses;
  what.include_tokenizer = true;
  what.tokenizer_hash = kernels::to_hex(place.tokens.hash());
  const auto got = fetch(what);
  REQUIRE(got);
  REQUIRE(got->tensors.size() == 1);
  CHECK(got->tensors[0].name == tokenizer_unit);
  const auto read = ask<tensor_handle>(*this, receiver, read_fetched{got->fetch_id, "tokenizer"});
  REQUIRE(read);
  CHECK(std::string(read->view.as<char>(), read->view.bytes()) == file_text(place.tokenizer_path));
  self->send(receiver, drop_fetched{got->fetch_id});
  sched.run();
  what.tokenizer_hash = std::string(64, 'c');
  CHECK(fetch(what).code() == errc::not_found);
}

TEST_CASE_FIXTURE(fetch_fixture,
                  "units are fetched with velocity and tokenizer, verified, and written into a worker") {
  const auto got = fetch(wish());
  REQUIRE(got);
  CHECK(got->version == 2);
  CHECK(got->from == nodes[0]->node_id());
  CHECK(got->refused.empty());
  CHECK(got->state.tokens_trained == some_state(200).tokens_trained);
  CHECK(got->state.data_cursor.empty()); // a node's own counters stay with it
  check_content(*got);
  const auto script = std::make_shared<worker_script>();
  script->tensors = tiny_tensors(9);
  const auto worker = keep(sys.spawn(scripted_worker, script));
  REQUIRE(ask<caf::unit_t>(*this, receiver, write_fetched{got->fetch_id, worker, 77}));
  CHECK(script->loaded);
  CHECK(script->optimizer_step == 77);
  const auto expected = tiny_tensors(1);
  for (size_t i = 0; i < expected.size() / 3; ++i)
    CHECK(script->tensors[i].second.values == expected[i].second.values);
  caf::anon_send(receiver, drop_fetched{got->fetch_id});
  sched.run();
  CHECK(list_streams(place.receiver_options().folder, ready_suffix).empty());
  CHECK(ask<tensor_handle>(*this, receiver, read_fetched{got->fetch_id, "embed.weight"}).code() ==
        errc::not_found);
}

TEST_CASE_FIXTURE(fetch_fixture, "a subset of the units comes alone") {
  const auto got = fetch(wish({"layer.1"}));
  REQUIRE(got);
  for (const auto& tensor : got->tensors)
    if (tensor.name != tokenizer_unit)
      CHECK(tensor.name.find("layers.1.") != std::string::npos);
  check_content(*got);
}

TEST_CASE_FIXTURE(fetch_fixture,
                  "a stranger gets weights of an outer step, never the inner ones that came after") {
  place.write_with_velocity(250, 7);
  const auto got = fetch(wish());
  REQUIRE(got);
  check_content(*got, 1);
  open_checkpoint request;
  request.from.node_id = std::string(32, 'e');
  const auto opened = ask<checkpoint_opened>(*this, network->servers.begin()->second, request);
  REQUIRE(opened);
  CHECK(decode_transfer_manifest(opened->manifest.payload)->inner_step == 200);
  request.what.include_optimizer = true;
  request.from.node_id = std::string(32, 'd');
  const auto refused = ask<checkpoint_opened>(*this, network->servers.begin()->second, request);
  CHECK(refused.code() == errc::forbidden);
  CHECK(refused.reason() == "optimizer");
  auto options = place.server_options();
  options.same_wallet = [](const std::string& id) { return id == std::string(32, 'd'); };
  const auto own = keep(sys.spawn(checkpoint_server, options, nodes[0], time_source_ptr{clock}));
  const auto full = ask<checkpoint_opened>(*this, own, request);
  REQUIRE(full);
  const auto manifest = decode_transfer_manifest(full->manifest.payload);
  CHECK(manifest->inner_step == 250);
  CHECK(parse_state(manifest->state_json)->data_cursor == some_state(250).data_cursor);
  CHECK_FALSE(check(*manifest, tiny_architecture()));
}

TEST_CASE_FIXTURE(fetch_fixture,
                  "a download that is cut off again and again goes on where it was and ends identical") {
  const auto seed = test_seed();
  INFO("NEUROSHARD_TEST_SEED=" << seed);
  std::mt19937 random(seed);
  for (int round = 0; round < 5; ++round) {
    fs::remove_all(place.receiver_options().folder);
    network->calls.clear();
    int cuts = 0;
    network->on_chunk = [&](const std::string&, checkpoint_chunk&) {
      return cuts >= 6 || random() % 2 == 0 || ++cuts == 0;
    };
    const auto got = fetch(wish());
    REQUIRE(got);
    check_content(*got);
    std::vector<uint64_t> offsets;
    for (const auto& call : network->calls)
      if (!call.ends_with("manifest"))
        offsets.push_back(std::stoull(call.substr(call.find(' ') + 1)));
    CHECK(std::is_sorted(offsets.begin(), offsets.end()));
    caf::anon_send(receiver, drop_fetched{got->fetch_id});
    sched.run();
  }
}

TEST_CASE_FIXTURE(fetch_fixture,
                  "what came before the process ended is used after it, as far as its checksums hold") {
  int chunks = 0;
  network->on_chunk = [&](const std::string&, checkpoint_chunk&) { return ++chunks <= 3; };
  auto what = wish();
  what.candidates.resize(1);
  CHECK(fetch(what).reason() == "no_candidate");
  const auto partial = list_streams(place.receiver_options().folder, partial_suffix);
  REQUIRE(partial.size() == 1);
  CHECK(partial[0].bytes == 3 * chunk_bytes_min);
  SUBCASE("all of it") {}
  SUBCASE("but not a chunk that was torn") {
    flip_byte(partial[0].path + "/stream.bin", 2 * chunk_bytes_min + 5);
  }
  SUBCASE("but not bytes after the last chunk") {
    set_file_text(partial[0].path + "/stream.bin",
                  file_text(partial[0].path + "/stream.bin") + "half a chunk");
  }
  SUBCASE("nor anything when the manifest is damaged") {
    flip_byte(partial[0].path + "/manifest.bin", 3);
  }
  network->on_chunk = nullptr;
  network->calls.clear();
  receiver = receive(place.receiver_options());
  const auto got = fetch(what);
  REQUIRE(got);
  check_content(*got);
  REQUIRE(network->calls.size() == 2);
}

TEST_CASE_FIXTURE(fetch_fixture, "a peer that lies is refused with the reason, and another one is used") {
  const auto liar = addresses[0].address;
  const auto& id = *nodes[0];
  std::string reason;
  const auto manifest = [&](auto change) {
    network->on_manifest = [this, &id, liar, change](const std::string& from, signed_blob& blob) {
      if (from == liar)
        blob = altered(blob, id, change);
      return true;
    };
  };
  const auto chunk = [&](auto change) {
    network->on_chunk = [liar, change](const std::string& from, checkpoint_chunk& sent) {
      if (from == liar)
        change(sent);
      return true;
    };
  };
  const auto with_data = [](checkpoint_chunk& sent, std::string data) {
    sent.sha256 = kernels::sha256::of(data);
    sent.data = std::make_shared<const std::string>(std::move(data));
  };
  SUBCASE("a chunk that is not its checksum's") {
    reason = "A chunk does not match its checksum";
    chunk([](checkpoint_chunk& sent) { sent.sha256[3] ^= 1; });
  }
  SUBCASE("other weights under good checksums of the chunks") {
    reason = "does not match its checksum";
    chunk([&](checkpoint_chunk& sent) {
      auto data = *sent.data;
      data[100] ^= 1;
      with_data(sent, std::move(data));
    });
  }
  SUBCASE("other weights under good checksums of everything") {
    reason = "another hash than its holders announce";
    manifest([](transfer_manifest& m) {
      m.tensors[0].sha256[0] ^= 1;
      m.units = units_of_table(m.tensors);
    });
  }
  SUBCASE("other velocity") {
    reason = "The velocity of unit";
    manifest([](transfer_manifest& m) {
      for (auto& tensor : m.tensors)
        if (tensor.name == "diloco.v/embed.weight")
          tensor.sha256[0] ^= 1;
      m.units = units_of_table(m.tensors);
    });
  }
  SUBCASE("a whole of another checksum") {
    reason = "as a whole";
    manifest([](transfer_manifest& m) { m.sha256[0] ^= 1; });
  }
  SUBCASE("counters that cannot be those of the outer step") {
    reason = "counters are not those";
    uint64_t step = 201;
    SUBCASE("of the middle of a round") {}
    SUBCASE("more than rounds can have") {
      step = 30'000;
    }
    manifest([step](transfer_manifest& m) {
      auto state = some_state(200);
      m.inner_step = state.inner_step = step;
      state.round_first_step = step == 201 ? 200 : step;
      m.state_json = *state_to_json(state, false);
    });
  }
  SUBCASE("a gap in the table") {
    reason = "leaves a gap";
    manifest([](transfer_manifest& m) { m.tensors[2].offset += 4; });
  }
  SUBCASE("an overlap in the table") {
    reason = "overlaps";
    manifest([](transfer_manifest& m) { m.tensors[2].offset -= 4; });
  }
  SUBCASE("a total that is too large") {
    reason = "do not add up";
    manifest([](transfer_manifest& m) { m.total_bytes = uint64_t{1} << 60; });
  }
  SUBCASE("a tensor that is too large") {
    reason = "missing or has another shape";
    manifest([](transfer_manifest& m) {
      const uint64_t more = uint64_t{1} << 32;
      m.tensors[0].shape = {1 << 10, 1 << 20};
      const auto before = std::exchange(m.tensors[0].length, more);
      for (size_t i = 1; i < m.tensors.size(); ++i)
        m.tensors[i].offset += more - before;
      m.total_bytes += more - before;
    });
  }
  SUBCASE("a shape whose product overflows") {
    reason = "does not fit its shape";
    manifest([](transfer_manifest& m) { m.tensors[0].shape = {int64_t{1} << 40, int64_t{1} << 40}; });
  }
  SUBCASE("a tensor twice") {
    reason = "twice";
    manifest([](transfer_manifest& m) {
      m.tensors[1].name = m.tensors[0].name;
      m.units = units_of_table(m.tensors);
    });
  }
  SUBCASE("a tensor that nobody knows") {
    reason = "is not known here";
    manifest([](transfer_manifest& m) { m.tensors[0].name = "../../etc/passwd"; });
  }
  SUBCASE("a chunk beyond the end") {
    reason = "beyond the end";
    chunk([&](checkpoint_chunk& sent) {
      if (sent.last)
        with_data(sent, *sent.data + "more");
    });
  }
  SUBCASE("a chunk larger than a chunk may be") {
    reason = "beyond the end";
    chunk([&](checkpoint_chunk& sent) { with_data(sent, std::string(chunk_bytes_max + 1, 'x')); });
  }
  SUBCASE("a chunk from elsewhere") {
    reason = "not the next one";
    chunk([](checkpoint_chunk& sent) { sent.offset += 64; });
  }
  SUBCASE("a wrong signature") {
    reason = "signature";
    network->on_manifest = [&](const std::string& from, signed_blob& blob) {
      if (from == liar)
        blob.sig[5] ^= 1;
      return true;
    };
  }
  SUBCASE("the manifest of another node") {
    reason = "";
    network->on_manifest = [&](const std::string& from, signed_blob& blob) {
      if (from == liar)
        blob =
            altered(blob, *nodes[2], [&](transfer_manifest& m) { m.author_node_id = nodes[2]->node_id(); });
      return true;
    };
  }
  SUBCASE("another architecture") {
    reason = "another architecture";
    manifest([](transfer_manifest& m) {
      auto other = tiny_architecture();
      other.num_layers = 3;
      m.architecture = model::canonical_json(other);
    });
  }
  SUBCASE("another version") {
    reason = "another version";
    manifest([](transfer_manifest& m) { m.version = 1; });
  }
  SUBCASE("garbage in the place of the manifest") {
    reason = "malformed";
    network->on_manifest = [&](const std::string& from, signed_blob& blob) {
      if (from == liar)
        blob = id.sign_as_node(checkpoint_tag, "\xff\xff\xff\xff garbage");
      return true;
    };
  }
  const auto got = fetch(wish());
  REQUIRE(got);
  CHECK(got->from == nodes[1]->node_id());
  REQUIRE(got->refused.size() == 1);
  INFO(got->refused[0]);
  CHECK(got->refused[0].starts_with(id.node_id()));
  CHECK(got->refused[0].find(reason) != std::string::npos);
  check_content(*got);
}

TEST_CASE_FIXTURE(
    fetch_fixture,
    "stored bytes that fail their hash are no peer's: the checkpoint is set aside, another node asked") {
  served_place damaged;
  const auto id = damaged.write_with_velocity(200, 1);
  flip_byte(fs::path(damaged.folder) / id / "tensors.bin", 5'000);
  network->servers[addresses[0].address] = serve(damaged, 0);
  const auto got = fetch(wish());
  REQUIRE(got);
  CHECK(got->from == nodes[1]->node_id());
  CHECK(fs::exists(damaged.folder + "/" + id + ".damaged"));
  CHECK_FALSE(fs::exists(damaged.folder + "/" + id));
  const auto refused =
      ask<checkpoint_opened>(*this, network->servers[addresses[0].address], open_checkpoint{});
  CHECK(refused.code() == errc::not_found);
}

TEST_CASE_FIXTURE(fetch_fixture, "a disk that changes its mind while a stream is read is data loss") {
  const auto server = network->servers[addresses[0].address];
  const auto opened = ask<checkpoint_opened>(*this, server, open_checkpoint{});
  REQUIRE(opened);
  flip_byte(fs::path(place.folder) / newest / "tensors.bin", 5'000);
  const auto read = ask<checkpoint_chunk>(*this, server, read_chunk{opened->stream_id, 0});
  CHECK(read.code() == errc::data_loss);
  CHECK(fs::exists(place.folder + "/" + newest + ".damaged"));
}

TEST_CASE_FIXTURE(fetch_fixture, "a checkpoint that is pruned while it is served can be read to its end") {
  const auto server = network->servers[addresses[0].address];
  const auto opened = ask<checkpoint_opened>(*this, server, open_checkpoint{});
  REQUIRE(opened);
  fs::remove_all(fs::path(place.folder) / newest);
  const auto read = ask<checkpoint_chunk>(*this, server, read_chunk{opened->stream_id, 0});
  REQUIRE(read);
  CHECK(read->last);
  CHECK(read->data->size() == opened->total_bytes);
  CHECK(ask<checkpoint_opened>(*this, server, open_checkpoint{}).reason() == "checkpoint");
}

TEST_CASE_FIXTURE(fetch_fixture,
                  "four streams are served at a time, one for each peer, and idle ones are closed") {
  const auto server = network->servers[addresses[0].address];
  const auto open = [&](char peer) {
    open_checkpoint request;
    request.from.node_id = std::string(32, peer);
    return ask<checkpoint_opened>(*this, server, request);
  };
  const auto first = open('a');
  REQUIRE(first);
  CHECK(open('a').reason() == "streams");
  for (const char peer : {'b', 'c', 'd'})
    CHECK(open(peer));
  const auto fifth = open('e');
  CHECK(fifth.code() == errc::overloaded);
  CHECK(fifth.reason() == "streams");
  caf::anon_send(server, close_checkpoint{first->stream_id});
  CHECK(open('e'));
  clock->advance_s(31);
  caf::anon_send(server, tick_atom_v);
  sched.run();
  CHECK(open('f'));
  CHECK(ask<checkpoint_chunk>(*this, server, read_chunk{first->stream_id, 0}).code() == errc::aborted);
}

TEST_CASE_FIXTURE(fetch_fixture, "wishes that cannot be met are refused with the reason") {
  const auto server = network->servers[addresses[0].address];
  const auto reason = [&](auto change) {
    open_checkpoint request;
    request.what.manifest_only = true;
    change(request.what);
    return ask<checkpoint_opened>(*this, server, request).reason();
  };
  CHECK(reason([](auto& w) { w.version = 9; }) == "checkpoint");
  CHECK(reason([](auto& w) { w.min_version = 9; }) == "checkpoint");
  CHECK(reason([](auto& w) { w.units = {"layer.7"}; }) == "unit");
  CHECK(reason([](auto& w) { w.checkpoint_id = std::string(64, 'a'); }) == "checkpoint");
  CHECK(reason([](auto& w) { w.checkpoint_id = "x"; }) == "checkpoint_id");
  CHECK(reason([](auto& w) { w.offset = uint64_t{1} << 40; }) == "offset");
  CHECK(reason([](auto& w) { w.chunk_bytes = 17; }) == "chunk_bytes");
  CHECK(reason([](auto& w) { w.architecture_id = "0123456789abcdef"; }) == "architecture");
  CHECK(reason([](auto& w) { w.units.resize(wished_units_max + 1); }) == "units");
}

TEST_CASE_FIXTURE(fetch_fixture, "a checkpoint larger than the room for it is not begun") {
  auto options = place.receiver_options();
  options.folder = place.root.path() + "/disk";
  const small_disk disk(options.folder, 200 << 10);
  if (disk.missing())
    return;
  receiver = receive(options);
  const auto refused = fetch(wish());
  CHECK(refused.code() == errc::overloaded);
  CHECK(refused.reason() == "storage");
  CHECK(list_streams(options.folder, partial_suffix).empty());
}

TEST_CASE_FIXTURE(fetch_fixture,
                  "an upload goes on where it broke, is stored after all checks, and serves the next fetch") {
  auto options = place.receiver_options();
  options.cohort_member = [](const std::string& id, const std::string& unit) {
    return id == std::string(32, 'a') && unit != "head";
  };
  options.same_wallet = [](const std::string& id) { return id == std::string(32, 'b'); };
  receiver = receive(options);
  const auto server = network->servers[addresses[0].address];
  const auto stream_of = [&](std::vector<std::string> units) {
    open_checkpoint request;
    request.what.units = std::move(units);
    request.what.include_velocity = true;
    request.what.chunk_bytes = chunk_bytes_min;
    auto opened = ask<checkpoint_opened>(*this, server, request);
    REQUIRE(opened);
    return *opened;
  };
  const auto begin = [&](const signed_blob& manifest, char peer) {
    begin_upload request{manifest, {}};
    request.from.node_id = std::string(32, peer);
    return ask<upload_begun>(*this, receiver, request);
  };
  const auto whole = stream_of({"embed", "layer.0", "layer.1", "head", "tokenizer"});
  CHECK(begin(whole.manifest, 'a').reason() == "upload");
  CHECK(begin(whole.manifest, 'c').code() == errc::forbidden);
  CHECK(begin(stream_of({"layer.1"}).manifest, 'a'));
  const auto first = begin(whole.manifest, 'b');
  REQUIRE(first);
  CHECK(first->resume_offset == 0);
  CHECK(begin(whole.manifest, 'b').reason() == "uploads");
  const auto send = [&](uint64_t upload, uint64_t offset) {
    auto chunk = ask<checkpoint_chunk>(*this, server, read_chunk{whole.stream_id, offset});
    REQUIRE(chunk);
    REQUIRE(ask<caf::unit_t>(*this, receiver, upload_chunk{upload, *chunk}));
    return offset + chunk->data->size();
  };
  uint64_t at = send(first->upload_id, 0);
  caf::anon_send(receiver, abort_upload{first->upload_id});
  sched.run();
  // The manifest alone asks where to go on.
  const auto asked = begin(whole.manifest, 'b');
  REQUIRE(asked);
  CHECK(asked->resume_offset == at);
  const auto part = ask<put_checkpoint_reply>(*this, receiver, end_upload{asked->upload_id});
  REQUIRE(part);
  CHECK(part->status == put_status::partial);
  CHECK(part->resume_offset == at);
  const auto again = begin(whole.manifest, 'b');
  REQUIRE(again);
  while (at < whole.total_bytes)
    at = send(again->upload_id, at);
  const auto stored = ask<put_checkpoint_reply>(*this, receiver, end_upload{again->upload_id});
  REQUIRE(stored);
  CHECK(stored->status == put_status::stored);
  CHECK(stored->checkpoint_id == whole.checkpoint_id);
  const auto had = begin(whole.manifest, 'b');
  REQUIRE(had);
  CHECK(had->upload_id == 0);
  network->calls.clear();
  const auto got = fetch(wish());
  REQUIRE(got);
  CHECK(network->calls.empty());
  check_content(*got);
}

TEST_CASE_FIXTURE(fetch_fixture,
                  "an upload of wrong bytes is refused, and what is broken off is gone after an hour") {
  auto options = place.receiver_options();
  options.same_wallet = [](const std::string&) { return true; };
  receiver = receive(options);
  open_checkpoint request;
  request.what.chunk_bytes = chunk_bytes_min;
  const auto server = network->servers[addresses[0].address];
  const auto opened = ask<checkpoint_opened>(*this, server, request);
  REQUIRE(opened);
  begin_upload upload{opened->manifest, {}};
  upload.from.node_id = std::string(32, 'b');
  const auto begun = ask<upload_begun>(*this, receiver, upload);
  REQUIRE(begun);
  auto chunk = *ask<checkpoint_chunk>(*this, server, read_chunk{opened->stream_id, 0});
  chunk.sha256[0] ^= 1;
  const auto wrong = ask<caf::unit_t>(*this, receiver, upload_chunk{begun->upload_id, chunk});
  CHECK(wrong.code() == errc::invalid_request);
  CHECK(wrong.reason() == "chunk");
  CHECK(ask<put_checkpoint_reply>(*this, receiver, end_upload{begun->upload_id}).code() == errc::aborted);
  upload.manifest.sig[0] ^= 1;
  CHECK(ask<upload_begun>(*this, receiver, upload).code() == errc::unauthorized);
  CHECK(list_streams(options.folder, partial_suffix).size() == 1);
  clock->set_unix_us(system_time()->unix_us() + int64_t{3'700} * 1'000'000);
  caf::anon_send(receiver, tick_atom_v);
  sched.run();
  CHECK(list_streams(options.folder, partial_suffix).empty());
}
