// What moves between slow and fast memory: the standard algorithm and the tiled one, run on counted memory.
#include <algorithm>
#include <cmath>

#include "docs/learn/lessons/lessons.hpp"
#include "ref/attention.hpp"
#include "tests/support/random.hpp"

namespace attest::lessons {
namespace {

/// Elements that were loaded into fast memory, and stored from there.
struct Traffic {
  Index loaded = 0, stored = 0;
  Index elements() const { return loaded + stored; }
};

/// A matrix in slow memory: what is computed with is loaded first, rows by rows and columns by columns.
struct Slow {
  Array<double, 2> x;
  Traffic& traffic;

  Array<double, 2> load(Index i, Index rows, Index j, Index columns) const {
    Array<double, 2> fast({rows, columns});
    for (Index a = 0; a < rows; ++a) {
      for (Index b = 0; b < columns; ++b) fast(a, b) = x(i + a, j + b);
    }
    traffic.loaded += rows * columns;
    return fast;
  }
  void store(Index i, Index j, const Array<double, 2>& fast) {
    for (Index a = 0; a < fast.extent(0); ++a) {
      for (Index b = 0; b < fast.extent(1); ++b) x(i + a, j + b) = fast(a, b);
    }
    traffic.stored += fast.size();
  }
};

// What happens in fast memory costs nothing here.
Array<double, 2> times_transposed(const Array<double, 2>& a, const Array<double, 2>& b, double factor) {
  Array<double, 2> c({a.extent(0), b.extent(0)});
  for (Index i = 0; i < a.extent(0); ++i) {
    for (Index j = 0; j < b.extent(0); ++j) {
      for (Index d = 0; d < a.extent(1); ++d) c(i, j) += factor * a(i, d) * b(j, d);
    }
  }
  return c;
}

void add_product(Array<double, 2>& c, const Array<double, 2>& a, const Array<double, 2>& b) {
  for (Index i = 0; i < a.extent(0); ++i) {
    for (Index j = 0; j < a.extent(1); ++j) {
      for (Index e = 0; e < b.extent(1); ++e) c(i, e) += a(i, j) * b(j, e);
    }
  }
}

struct Problem {
  Index n, d;
  double scale;
  Slow q, k, v, o;

  Problem(Index n_, Index d_, Traffic& traffic)
      : n(n_),
        d(d_),
        scale(1 / std::sqrt(static_cast<double>(d_))),
        q{random(1), traffic},
        k{random(2), traffic},
        v{random(3), traffic},
        o{Array<double, 2>({n, d}), traffic} {}

  Array<double, 2> random(std::uint64_t seed) const {
    test::Random numbers(seed);
    Array<double, 2> x({n, d});
    for (Index i = 0; i < n; ++i) {
      for (Index e = 0; e < d; ++e) x(i, e) = numbers.symmetric();
    }
    return x;
  }
};

/// Three steps that meet in slow memory. Each reads its operands once, which is the best that it can do.
void standard(Problem& x, Traffic& traffic) {
  const Index n = x.n, d = x.d;
  Slow s{Array<double, 2>({n, n}), traffic}, p = s;
  s.store(0, 0, times_transposed(x.q.load(0, n, 0, d), x.k.load(0, n, 0, d), x.scale));
  for (Index i = 0; i < n; ++i) {
    Array<double, 2> row = s.load(i, 1, 0, n);
    const double m = *std::max_element(row.data(), row.data() + n);
    double l = 0;
    for (Index j = 0; j < n; ++j) l += row(0, j) = std::exp(row(0, j) - m);
    for (Index j = 0; j < n; ++j) row(0, j) /= l;
    p.store(i, 0, row);
  }
  Array<double, 2> o({n, d});
  add_product(o, p.load(0, n, 0, n), x.v.load(0, n, 0, d));
  x.o.store(0, 0, o);
}

/// One pass over tiles: scores and weights never leave fast memory.
void tiled(Problem& x, Index query_tile, Index key_tile) {
  const Index d = x.d;
  for (Index i = 0; i < x.n; i += query_tile) {
    const Index rows = std::min(query_tile, x.n - i);
    const Array<double, 2> q = x.q.load(i, rows, 0, d);
    Array<double, 2> o({rows, d});
    std::vector<double> m(rows, -INFINITY), l(rows, 0);
    for (Index j = 0; j < x.n; j += key_tile) {
      const Index keys = std::min(key_tile, x.n - j);
      Array<double, 2> p = times_transposed(q, x.k.load(j, keys, 0, d), x.scale);
      for (Index r = 0; r < rows; ++r) {
        double* const row = &p(r, 0);
        const double m_new = std::max(m[r], *std::max_element(row, row + keys));
        const double factor = std::exp(m[r] - m_new);
        m[r] = m_new;
        l[r] *= factor;
        for (Index e = 0; e < d; ++e) o(r, e) *= factor;
        for (Index c = 0; c < keys; ++c) l[r] += row[c] = std::exp(row[c] - m_new);
      }
      add_product(o, p, x.v.load(j, keys, 0, d));
    }
    for (Index r = 0; r < rows; ++r) {
      for (Index e = 0; e < d; ++e) o(r, e) /= l[r];
    }
    x.o.store(i, 0, o);
  }
}

// The same in closed form.
Index standard_elements(Index n, Index d) {
  return 4 * n * n + 4 * n * d;
}
Index tiled_elements(Index n, Index d, Index query_tile) {
  return 2 * n * d + (n + query_tile - 1) / query_tile * 2 * n * d;
}

double mib(Index float16_elements) {
  return static_cast<double>(float16_elements) * 2 / 1048576;
}

}  // namespace

void standard_attention(Numbers& numbers) {
  const Example example;
  Array<double, 3> s({1, 4, 4}), p = s, o({1, 4, 2});
  ref::attention_forward(plain(Causal::none, 0.5), example.inputs(),
                         {o.view(), {}, {}, {}, s.view(), p.view()});
  std::string& text = numbers["standard_attention.example"];
  print_matrix(text, "S = Q K^T / 2", s.view().slice(0));
  print_matrix(text, "P = softmax", p.view().slice(0));
  print_matrix(text, "O = P V", o.view().slice(0));

  std::string& table = numbers["standard_attention.traffic"];
  constexpr Index d = 64, key_tile = 64;
  print(table, "#  MiB of float16 between slow and fast memory, one head, D = 64\n");
  print(table, "#    N  standard  tiled, 64 rows  tiled, 128 rows  counted by\n");
  for (const Index n : {256, 512, 1024, 4096, 16384, 65536}) {
    const bool is_run = n <= 512;
    Index elements[] = {standard_elements(n, d), tiled_elements(n, d, 64), tiled_elements(n, d, 128)};
    if (is_run) {
      Traffic traffic[3];
      Problem problems[] = {{n, d, traffic[0]}, {n, d, traffic[1]}, {n, d, traffic[2]}};
      standard(problems[0], traffic[0]);
      tiled(problems[1], 64, key_tile);
      tiled(problems[2], 128, key_tile);
      for (int way = 0; way < 3; ++way) {
        for (Index i = 0; i < n * d; ++i) {
          if (!(std::abs(problems[way].o.x.data()[i] - problems[0].o.x.data()[i]) < 1e-14)) std::abort();
        }
        if (traffic[way].elements() != elements[way]) std::abort();
        elements[way] = traffic[way].elements();
      }
    }
    print(table, "%6td %9.1f %15.1f %16.1f  %s\n", n, mib(elements[0]), mib(elements[1]), mib(elements[2]),
          is_run ? "running it" : "equation");
  }

  std::string& scores = numbers["standard_attention.exercise_memory"];
  for (const Index n : {4096, 16384, 65536}) {
    print(scores, "N = %5td: S and P take %6.0f MiB, Q, K, V and O %4.0f MiB\n", n, mib(2 * n * n),
          mib(4 * n * d));
  }
  std::string& ratio = numbers["standard_attention.exercise_ratio"];
  for (const Index rows : {64, 128, 256}) {
    print(ratio, "%3td query rows a tile: %.2f times less traffic at N = 65536; 2 B_r / D = %.0f\n", rows,
          static_cast<double>(standard_elements(65536, d)) /
              static_cast<double>(tiled_elements(65536, d, rows)),
          2 * static_cast<double>(rows) / d);
  }
}

}  // namespace attest::lessons
