// Batch norm as one scale and one shift per channel, from sums over the batch; in double, a few numbers only.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

namespace sepnet {

struct Norm {
  int64_t channels, count;  // of images × positions
  double eps, momentum;     // how far the running statistics move towards the batch's
  const double* sums;       // (2, C): of values and of their squares
  const float* weight;
  const float* bias;
  float* coefficients;      // (2, C): scale, shift
  double* moments;          // (2, C): mean, biased variance
  const float* running_mean;
  const float* running_var;
  float* new_mean;  // may be running_mean
  float* new_var;
  const float* grad_coefficients;
  double* grad_sums;
  float* grad_weight;
  float* grad_bias;
};

inline void norm_forward(const Norm& n) {
  const int64_t c = n.channels;
  const double count = static_cast<double>(n.count);
  for (int64_t i = 0; i < c; i++) {
    double mean = n.sums[i] / count, variance = std::max(n.sums[c + i] / count - mean * mean, 0.0);
    double scale = (n.weight ? n.weight[i] : 1.0) / std::sqrt(variance + n.eps);
    n.moments[i] = mean;
    n.moments[c + i] = variance;
    if (n.running_mean) {
      double unbiased = variance * count / std::max(count - 1, 1.0);
      n.new_mean[i] = n.running_mean[i] + static_cast<float>(n.momentum * (mean - n.running_mean[i]));
      n.new_var[i] = n.running_var[i] + static_cast<float>(n.momentum * (unbiased - n.running_var[i]));
    }
    n.coefficients[i] = static_cast<float>(scale);
    n.coefficients[c + i] = static_cast<float>((n.bias ? n.bias[i] : 0.0) - mean * scale);
  }
}

inline void norm_backward(const Norm& n) {
  const int64_t c = n.channels;
  const double count = static_cast<double>(n.count);
  for (int64_t i = 0; i < c; i++) {
    double mean = n.moments[i], inverse = 1 / std::sqrt(n.moments[c + i] + n.eps);
    double weight = n.weight ? n.weight[i] : 1.0, by_shift = n.grad_coefficients[c + i];
    double by_scale = n.grad_coefficients[i] - mean * by_shift;
    double by_variance = by_scale * weight * -0.5 * inverse * inverse * inverse;
    n.grad_sums[i] = (-by_shift * weight * inverse - 2 * mean * by_variance) / count;
    n.grad_sums[c + i] = by_variance / count;
    if (n.grad_weight) n.grad_weight[i] = static_cast<float>(by_scale * inverse);
    if (n.grad_bias) n.grad_bias[i] = static_cast<float>(by_shift);
  }
}

}  // namespace sepnet
