#include "zero_node.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty_like.h>
#include <pybind11/pybind11.h>
#include <torch/csrc/autograd/functions/utils.h>
#include <torch/csrc/autograd/saved_variable.h>
#include <torch/csrc/autograd/variable.h>
#include <torch/csrc/utils/pybind.h>

#include <utility>

#include "module.h"
#include "node.h"
#include "plain.h"

namespace hwfault_torch {
namespace {

namespace ag = torch::autograd;

// torch.ops.hwfault.zero by way of Python, for whoever follows the operators of a backward pass.
PyObject* zero_followed = nullptr;

class ZeroNode : public ag::Node {
 public:
  explicit ZeroNode(Struck struck) : samples_(struck.samples, false), struck_(std::move(struck)) {}

  std::string name() const override { return "HwfaultZero"; }

  ag::variable_list apply(ag::variable_list&& given) override {
    at::Tensor gradient = std::move(given[0]);
    given.clear();
    if (!gradient.defined()) return {gradient};
    samples_.unpack();  // an error if they were written to meanwhile
    return {with_zeros(std::move(gradient))};
  }

  at::Tensor with_zeros(at::Tensor gradient) const {
    // of values that hold no number every gradient passes
    at::Tensor kept;
    if (struck_.left.defined()) kept = gradient.reshape(-1).index_select(0, struck_.left);
    at::Tensor zeroed = zero(std::move(gradient));
    if (kept.defined()) zeroed = zeroed.reshape(-1).index_copy(0, struck_.left, kept).reshape(zeroed.sizes());
    return zeroed;
  }

 private:
  at::Tensor zero(at::Tensor gradient) const {
    if (followed() || !is_plain(gradient)) return by_operator(gradient);
    const bool differentiable = at::GradMode::is_enabled() && gradient.requires_grad();
    const at::NoGradGuard no_grad;
    const bool unheld = gradient.use_count() == 1 && owns_memory(gradient) && gradient.is_contiguous();
    const at::Tensor source = gradient.contiguous();
    const bool own = !differentiable && (unheld || !source.is_same(gradient));
    at::Tensor out = own ? source : at::empty_like(source);
    struck_.site->zero(struck_.shape, source.const_data_ptr(), out.mutable_data_ptr(), struck_.seed, struck_.samples);
    if (differentiable) set_history(gradient, out, make_node<ZeroNode>(struck_));
    return out;
  }

  template <class N>
  static void set_history(const at::Tensor& from, const at::Tensor& to, N node) {
    node->set_next_edges(ag::collect_next_edges(from));
    ag::set_history(to, node);
  }

  at::Tensor by_operator(const at::Tensor& gradient) const {
    namespace py = pybind11;
    const py::gil_scoped_acquire gil;
    const StreamSite& site = *struck_.site;
    const Axis& axis = site.axis;
    return py::cast<at::Tensor>(py::handle(zero_followed)(
        gradient, struck_.samples, static_cast<int64_t>(struck_.seed), site.program, site.bit_width, site.is_signed,
        site.representation, py::make_tuple(site.batched, axis.axis, axis.inner, axis.rows)));
  }

  const ag::SavedVariable samples_;
  const Struck struck_;
};

// Gradients pass a copy of x unchanged.
class PassNode : public ag::Node {
 public:
  std::string name() const override { return "HwfaultStraightThrough"; }
  ag::variable_list apply(ag::variable_list&& given) override { return std::move(given); }
};

template <class N>
void set_node(const at::Tensor& x, const at::Tensor& out, bool in_place, N node) {
  node->set_next_edges(ag::collect_next_edges(x));
  if (in_place)
    ag::impl::rebase_history(x, ag::Edge(node, node->add_input_metadata(x)));
  else
    ag::set_history(out, node);
}

}  // namespace

void note_history(const at::Tensor& x, const at::Tensor& out, bool in_place, Struck struck, bool straight_through) {
  if (in_place) ag::impl::bump_version(x);
  if (!straight_through)
    set_node(x, out, in_place, make_node<ZeroNode>(std::move(struck)));
  else if (!in_place)  // in place nothing becomes of the gradient
    set_node(x, out, in_place, make_node<PassNode>());
}

at::Tensor zero_gradient(const Struck& struck, at::Tensor gradient) {
  return ZeroNode(struck).with_zeros(std::move(gradient));
}

void add_zero_node(pybind11::module_& m) {
  m.def("call_zero_followed", [](const pybind11::function& f) { zero_followed = f.inc_ref().ptr(); });
}

}  // namespace hwfault_torch
