// What Python calls, in plain C: see native.py.
#include "norm.h"
#include "pool.h"
#include "stage.h"

#define SEPNET_KERNELS(suffix, type)                                                                         \
  void sepnet_stage_forward_##suffix(const sepnet::Stage* stage) { sepnet::forward<type>(*stage); }          \
  void sepnet_stage_backward_##suffix(const sepnet::Stage* stage) { sepnet::backward<type>(*stage); }        \
  void sepnet_pool_forward_##suffix(const sepnet::Pool* pool) { sepnet::pool_forward<type>(*pool); }         \
  void sepnet_pool_backward_##suffix(const sepnet::Pool* pool) { sepnet::pool_backward<type>(*pool); }

namespace sepnet {

struct Call {
  void (*kernel)(const void* arguments);
  int64_t offset;
};

}  // namespace sepnet

extern "C" {

SEPNET_KERNELS(f32, float)
#if defined(__AVX512BF16__)
SEPNET_KERNELS(bf16, sepnet::bf16)
#endif
// Call kernels one after the other, each with its arguments at an offset from `arguments`.
void sepnet_run(const sepnet::Call* calls, int64_t count, const char* arguments) {
  for (int64_t i = 0; i < count; i++) calls[i].kernel(arguments + calls[i].offset);
}
// Make products in tile registers from now on, or not; return whether they are.
int64_t sepnet_use_tiles(int64_t wanted) { return sepnet::use_tiles(wanted); }
void sepnet_norm_forward(const sepnet::Norm* norm) { sepnet::norm_forward(*norm); }
void sepnet_norm_backward(const sepnet::Norm* norm) { sepnet::norm_backward(*norm); }
}
