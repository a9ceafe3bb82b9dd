// Heads of K or V that are read from another batch entry, head or address than a row's own.
#include "verify/ops/attention/reads.hpp"

namespace attest {
namespace {

enum class Operand { v, k, both };
constexpr const char* name_of(Operand x) {
  return x == Operand::v ? "V" : x == Operand::k ? "K" : "K and V";
}

using Tensor3 = View<const double, 3>;
const Tensor3& tensor_of(const AttentionInputs& in, bool is_v) {
  return is_v ? in.v : in.k;
}

/// The keys of one head.
struct Place {
  Index n, g;  // sequence, key/value head
};

/// K or V as it lies in memory. Keys of the past were joined with new ones, for each batch entry alone.
class Memory {
 public:
  Memory(const AttentionCase& attention, bool is_v) : attention_(attention), is_v_(is_v) {}

  bool holds(const Place& at) const {
    return at.n >= 0 && at.n < std::ssize(attention_.sequences) && at.g >= 0 && at.g < of(at.n).extent(0);
  }
  Index stride(Index n) const { return of(n).stride(1); }
  /// Where the keys of a head begin.
  Index offset(const Place& at) const {
    return of(at.n).data_handle() + at.g * of(at.n).stride(0) - first(at.n);
  }

  /// As many keys as sequence `like` has, for all heads alike; nothing if not all of them are there.
  std::optional<Tensor3> keys(Index n, Index offset, Index stride, Index like) const {
    const Index heads = of(like).extent(0), count = of(like).extent(1), width = of(like).extent(2);
    if (offset < 0 || offset + (count - 1) * stride + width > size(n)) return {};
    return Tensor3{first(n) + offset, {heads, count, width}, {0, stride, 1}};
  }

 private:
  const Tensor3& of(Index n) const { return tensor_of(attention_.sequences[n].in, is_v_); }
  const double* first(Index n) const {
    if (attention_.has_past()) return of(n).data_handle();
    return of(0).data_handle() - attention_.sequences.front().first_k * of(0).stride(1);
  }
  Index size(Index n) const {
    const Index entries = is_packed(attention_) ? 1 : std::ssize(attention_.sequences);
    const Index keys = attention_.has_past() ? of(n).extent(1) : attention_.padded_keys() * entries;
    return of(n).extent(0) * keys * of(n).extent(2);
  }

  const AttentionCase& attention_;
  const bool is_v_;
};

/// What is read in place of one's own keys, of V or of K.
using Read = std::function<std::optional<Tensor3>(const Place& own, Index h, bool is_v)>;

Reading reading(const AttentionCase& attention, Operand operand, const std::string& name, const Read& read) {
  return {name, [&attention, operand, read](const AttentionRow& row) -> std::optional<AttentionInputs> {
            AttentionInputs in = *row.in;
            const Place own{sequence_of(attention, row), in.kv_head(row.h)};
            for (const bool is_v : {true, false}) {
              if (operand == (is_v ? Operand::k : Operand::v)) continue;
              const std::optional<Tensor3> keys = read(own, row.h, is_v);
              if (!keys) return {};
              (is_v ? in.v : in.k) = *keys;
            }
            return in;
          }};
}

Read of_place(const AttentionCase& attention, const std::function<Place(Place own, Index h)>& place) {
  return [&attention, place](const Place& own, Index h, bool is_v) -> std::optional<Tensor3> {
    const Memory memory(attention, is_v);
    const Place at = place(own, h);
    if (!memory.holds(at)) return {};
    return memory.keys(at.n, memory.offset(at), memory.stride(at.n), own.n);
  };
}

std::vector<Reading> by_rules(const AttentionCase& attention, Operand operand) {
  std::vector<Reading> all;
  const AttentionInputs& first = attention.sequences.front().in;
  const Index entries = std::ssize(attention.sequences), heads = first.kv_heads();
  const Index q_heads = first.q_heads(), group = first.group();
  const auto add = [&](const std::string& from, const Read& read) {
    all.push_back(reading(attention, operand, name_of(operand) + (" read " + from), read));
  };
  const auto place = [&](const std::string& from, auto of) { add("from " + from, of_place(attention, of)); };
  if (entries > 1) {
    const std::string entry = entry_text(attention);
    place(entry + " 0", [](Place at, Index) { return Place{0, at.g}; });
    place("the next " + entry, [=](Place at, Index) { return Place{(at.n + 1) % entries, at.g}; });
    place("the " + entry + " before", [=](Place at, Index) {
      return Place{(at.n + entries - 1) % entries, at.g};
    });
    place(entry + " n mod B and head n / B, where n = b Hkv + h", [=](Place at, Index) {
      const Index n = at.n * heads + at.g;
      return Place{n % entries, n / entries};
    });
    place(entry + " n mod B and query head n / B, where n = b Hq + h", [=](Place at, Index h) {
      const Index n = at.n * q_heads + h;
      return Place{n % entries, n / entries / group};
    });
  }
  if (heads > 1) {
    place("head 0", [](Place at, Index) { return Place{at.n, 0}; });
    place("the next head", [=](Place at, Index) { return Place{at.n, (at.g + 1) % heads}; });
    place("the head before", [=](Place at, Index) { return Place{at.n, (at.g + heads - 1) % heads}; });
    place("the heads in reverse order", [=](Place at, Index) { return Place{at.n, heads - 1 - at.g}; });
  }
  if (attention.has_past() || first.key || operand == Operand::both) return all;  // not as in memory
  const std::string other = operand == Operand::v ? "K" : "V";
  add("with the row stride of " + other, [&attention](const Place& own, Index, bool is_v) {
    const Memory memory(attention, is_v);
    return memory.keys(own.n, memory.offset(own), Memory(attention, !is_v).stride(own.n), own.n);
  });
  add("with all strides of " + other, [&attention](const Place& own, Index, bool is_v) {
    const Memory strange(attention, !is_v);
    return Memory(attention, is_v).keys(own.n, strange.offset(own), strange.stride(own.n), own.n);
  });
  return all;
}

Reading from_rows_of_queries(const AttentionCase& attention, Operand operand) {
  const auto read = [&attention](const Place& own, Index, bool is_v) {
    const Memory memory(attention, is_v);
    const Sequence& s = attention.sequences[own.n];
    const Index stride = memory.stride(own.n);
    return memory.keys(own.n, memory.offset(own) + (s.first_q - s.first_k) * stride, stride, own.n);
  };
  return reading(attention, operand,
                 std::string(name_of(operand)) + " of a sequence read from where cu_seqlens_q has it begin",
                 read);
}

std::vector<Reading> all_places(const AttentionCase& attention, Operand operand) {
  std::vector<Reading> all;
  for (Index n = 0; n < std::ssize(attention.sequences); ++n) {
    for (Index g = 0; g < attention.sequences[n].in.kv_heads(); ++g) {
      all.push_back(reading(attention, operand,
                            "those of head " + std::to_string(g) + of_entry_text(attention, n),
                            of_place(attention, [=](Place, Index) {
                              return Place{n, g};
                            })));
    }
  }
  return all;
}

}  // namespace

std::vector<DiagnosisEntry> wrong_key_reads(const AttentionCase& attention,
                                            std::span<const AttentionRow> rows) {
  if (rows.empty()) return {};
  const std::vector<AttentionRow> few = few_of(rows);
  for (const Operand operand : {Operand::v, Operand::k, Operand::both}) {
    std::vector<Reading> readings = by_rules(attention, operand);
    if (is_packed(attention)) readings.push_back(from_rows_of_queries(attention, operand));
    std::vector<DiagnosisEntry> found = first_reading(few, readings);
    if (!found.empty()) return found;
  }
  for (const Operand operand : {Operand::v, Operand::k, Operand::both}) {
    std::vector<DiagnosisEntry> found = readings_of_each(attention, few, all_places(attention, operand),
                                                         name_of(operand) + std::string(" of other heads"));
    if (!found.empty()) return found;
  }
  return {};
}

}  // namespace attest
