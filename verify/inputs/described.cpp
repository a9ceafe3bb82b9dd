// Inputs that a file describes instead of holding them: writing the request, and reading it back.
#include "verify/inputs/described.hpp"

#include "core/invalid_case.hpp"
#include "verify/inputs/request.hpp"
#include "verify/keys.hpp"
#include "verify/op.hpp"

namespace attest {
namespace {

/// The same keys with the types that recipes expect, where op.read accepts others as well.
Attributes typed(const Case& c, const std::string& group, const std::vector<SpecKey>& keys,
                 const Attributes& found) {
  KeyReader reader(c, group, found);
  Attributes typed;
  for (const SpecKey& key : keys) {
    const std::string name(key.name);
    if (!found.contains(name)) continue;
    if (key.values == "number") {
      typed[name] = reader.number(name);
    } else if (key.values == "integer") {
      typed[name] = std::int64_t{reader.integer(name, 0)};
    } else if (key.values == "true, false") {
      typed[name] = reader.boolean(name, false);
    } else {
      typed[name] = reader.text(name);
    }
  }
  return typed;  // a key that is not known is found where the case is read
}

void check_generator(const Case& c, KeyReader& keys) {
  const Index version = keys.integer("generator", 0);
  if (version == generator_version) return;
  throw InvalidCase(c.object("recipe") + " attribute generator is " +
                    (keys.has("generator") ? std::to_string(version) : "missing") +
                    "; this program has version " + std::to_string(generator_version));
}

std::uint64_t seed_of(const Case& c, KeyReader& keys) {
  const Index seed = keys.integer("seed", -1);
  if (seed >= 0) return static_cast<std::uint64_t>(seed);
  throw InvalidCase(c.object("recipe") + " attribute seed is " +
                    (keys.has("seed") ? std::to_string(seed) : "missing") +
                    "; a number from 0 on is expected");
}

/// Fallbacks of extents may change; a file says all of them.
void check_shape(const OpInputs& inputs, const InputRequest& request) {
  for (const InputExtent& extent : inputs.extents) {
    if (!request.shape.contains(std::string(extent.symbol)))
      throw InvalidCase("shape lacks the extent " + std::string(extent.symbol) + ", " +
                        std::string(extent.meaning));
  }
}

}  // namespace

Attributes recipe_of(const InputRequest& request) {
  std::string shape, with;
  for (const auto& [symbol, extent] : request.shape)
    shape += (shape.empty() ? "" : ",") + symbol + "=" + std::to_string(extent);
  for (const std::string& name : request.with) with += (with.empty() ? "" : ",") + name;
  Attributes recipe = {{"name", request.recipe},
                       {"shape", shape},
                       {"dtype", std::string(format_of(request.dtype).name)},
                       {"seed", static_cast<std::int64_t>(request.seed)},
                       {"generator", generator_version}};
  if (!with.empty()) recipe["with"] = with;
  return recipe;
}

std::map<std::string, GeneratedTensor> described_inputs(const Case& c) {
  const Op& op = find_op(c);
  KeyReader keys(c, "recipe", c.recipe);
  check_generator(c, keys);
  RequestText text;
  text.recipe = keys.text("name");
  text.shape = {keys.text("shape")};
  text.dtype = keys.text("dtype");
  if (keys.has("with")) text.with = {keys.text("with")};
  text.seed = seed_of(c, keys);
  keys.finish();
  const Attributes spec = typed(c, "spec", op.spec, c.spec);
  const std::string object = c.object("recipe") + ": ";
  try {
    InputRequest request = parse_request(op, text);
    check_shape(op.generated, request);
    request.spec = spec;
    return op.generated.make(request).in;
  } catch (const InvalidCase& error) {
    throw InvalidCase(object + error.what());
  }
}

}  // namespace attest
