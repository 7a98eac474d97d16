// A whole quantizer of Brevitas' as one operator with its autograd node: hwfault/torch_ops/quantize_whole.py, whose steps
// these are, with less of Python. What it does not take is left to that.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <pybind11/stl.h>
#include <torch/csrc/autograd/functions/utils.h>
#include <torch/csrc/autograd/python_variable.h>
#include <torch/csrc/autograd/saved_variable.h>
#include <torch/csrc/autograd/variable.h>
#include <torch/csrc/utils/pybind.h>

#include <cmath>
#include <optional>
#include <utility>

#include "hook.h"
#include "library.h"
#include "module.h"
#include "node.h"
#include "plain.h"

namespace hwfault_torch {
namespace {

namespace py = pybind11;
namespace ag = torch::autograd;

constexpr double kLog2 = 0.69314718055994530942;

// hwfault/torch_ops/scale_rule.py
enum Restriction { kMagnitude, kPower, kNearestPower, kNextPower };

struct Rule {
  int restriction;
  at::Tensor threshold;
  std::vector<int64_t> shape;
  std::optional<double> least, least_scale;
  int64_t rows;  // of the values, whose largest magnitudes are read; 0 where a parameter is
  bool first_only;
  std::optional<double> least_magnitude;

  bool reads_values() const { return rows > 0; }
};

struct Scale {
  at::Tensor scale, restricted, source;
};

// How values lie on scales: `repeats` times one after the other, each for `shared` values (hwfault_quantizer).
struct Lie {
  int64_t repeats, outer, shared;
};

// Nothing where scales lie in another way, which Python's way knows.
std::optional<Lie> lie_of(const at::Tensor& x, at::IntArrayRef scale) {
  const int64_t missing = x.dim() - static_cast<int64_t>(scale.size());
  if (missing < 0) return {};
  Lie lie{1, 1, x.numel()};
  for (int64_t axis = 0; axis < static_cast<int64_t>(scale.size()); ++axis) {
    if (scale[axis] == 1) continue;
    const int64_t of_x = axis + missing;
    if (lie.outer != 1 || scale[axis] != x.size(of_x) || of_x == x.dim() - 1 || !x.numel()) return {};
    lie = {1, scale[axis], 1};
    for (int64_t before = 0; before < of_x; ++before) lie.repeats *= x.size(before);
    lie.shared = x.numel() / (lie.repeats * lie.outer);
    if (lie.shared == 1) return {};
  }
  return lie;
}

// Whether tensors of one shape lie in memory in the same order.
bool lie_alike(const at::Tensor& a, const at::Tensor& b) {
  for (int64_t axis = 0; axis < a.dim(); ++axis)
    if (a.size(axis) != 1 && a.stride(axis) != b.stride(axis)) return false;
  return true;
}

bool takes(const at::Tensor& x) { return is_plain(x) && x.scalar_type() == at::kFloat; }

// A function of Python's that takes the steps one by one, for gradients that are followed.
PyObject* one_by_one = nullptr;

// Something of Python's that threads without its lock may let go.
std::shared_ptr<py::object> kept(py::object given) {
  return {new py::object(std::move(given)), [](py::object* object) {
            if (!Py_IsInitialized()) return;
            const py::gil_scoped_acquire lock;
            delete object;
          }};
}

class Quantizer {
 public:
  Quantizer(float least, float most, bool passes, bool rectifies, Rule rule, py::object described)
      : rule(std::move(rule)), described_(kept(std::move(described))), least_(least), most_(most), passes_(passes),
        rectifies_(rectifies) {}

  const Rule rule;

  Scale scale_of(const at::Tensor& x, const at::Tensor& parameter) const {
    const at::Tensor source = rule.reads_values() ? largest(x) : parameter.detach();
    const at::Tensor restricted = restrict(source);
    const at::Tensor limited = rule.least ? restricted.clamp_min(*rule.least) : restricted;
    at::Tensor scale = limited / rule.threshold;
    if (rule.least_scale) scale.clamp_min_(*rule.least_scale);
    return {scale, restricted, source};
  }

  // The gradient of the source from that of the scale.
  at::Tensor source_gradient(const Scale& made, at::Tensor gradient) const {
    gradient = gradient / rule.threshold;
    const at::Tensor source = limited_source(made.source);
    if (rule.restriction == kMagnitude) return gradient * source.sgn();
    gradient = gradient * (made.restricted * kLog2);
    return rule.reads_values() ? gradient / (source * kLog2) : gradient;
  }

  at::Tensor quantized(const at::Tensor& x, const at::Tensor& scale, const at::Tensor& zero_point, const Lie& lie) const {
    at::Tensor out = at::empty_like(x);
    const hwfault_quantizer grid = on_grid(scale, zero_point, lie);
    checked(library.hwfault_quantize(x.const_data_ptr<float>(), out.mutable_data_ptr<float>(), &grid,
                                     at::get_num_threads()));
    return out;
  }

  // The same with faults; notes places that were struck in vain where the backward pass needs them.
  at::Tensor quantized(const at::Tensor& x, const at::Tensor& scale, const at::Tensor& zero_point, const Lie& lie,
                       Struck& struck) const {
    at::Tensor out = at::empty_like(x);
    const hwfault_quantizer grid = on_grid(scale, zero_point, lie);
    const hwfault_strike strike = strike_of(struck);
    int64_t no_numbers = 0;
    checked(library.hwfault_quantize_struck(x.const_data_ptr<float>(), out.mutable_data_ptr<float>(), &grid, &strike,
                                            at::get_num_threads(), &no_numbers));
    if (no_numbers) struck.left = out.isfinite().logical_not_().reshape(-1).nonzero().reshape(-1);
    return out;
  }

  // The gradients of values (undefined if they are not wanted) and scale.
  at::Tensor differentiate(const at::Tensor& x, const at::Tensor& gradient, at::Tensor* of_x, bool wants_scale,
                           const at::Tensor& scale, const at::Tensor& zero_point, const Struck* struck) const {
    const hwfault_quantizer grid = on_grid(scale, zero_point, *lie_of(x, scale.sizes()));
    at::Tensor sums, unwanted;
    if (wants_scale) sums = at::empty(scale.sizes(), scale.options().dtype(at::kDouble));
    double* const of_scale = wants_scale ? sums.mutable_data_ptr<double>() : nullptr;
    const float *const from = x.const_data_ptr<float>(), *const given = gradient.const_data_ptr<float>();
    if (struck) {
      if (!of_x) unwanted = at::empty_like(x);
      float* const to = (of_x ? *of_x : unwanted).mutable_data_ptr<float>();
      const hwfault_strike strike = strike_of(*struck);
      checked(library.hwfault_quantize_struck_gradient(from, given, to, of_scale, &grid, &strike,
                                                       struck->left.defined(), at::get_num_threads()));
    } else {
      float* const to = of_x ? of_x->mutable_data_ptr<float>() : nullptr;
      checked(library.hwfault_quantize_gradient(from, given, to, of_scale, &grid, at::get_num_threads()));
    }
    return wants_scale ? sums.to(at::kFloat) : sums;
  }

  void add_to_largest(const at::Tensor& x, const Scale& made, const at::Tensor& gradient, at::Tensor& of_x) const {
    checked(library.hwfault_largest_gradient(x.const_data_ptr<float>(), rule.rows, x.numel() / rule.rows,
                                             made.source.const_data_ptr<float>(),
                                             gradient.contiguous().const_data_ptr<float>(), rule.first_only,
                                             of_x.mutable_data_ptr<float>()));
  }

  py::handle described() const { return *described_; }

 private:
  at::Tensor largest(const at::Tensor& x) const {
    at::Tensor out = at::empty(rule.shape, x.options().requires_grad(false));
    checked(library.hwfault_largest(x.const_data_ptr<float>(), rule.rows, x.numel() / rule.rows,
                                    out.mutable_data_ptr<float>()));
    return out;
  }

  static hwfault_strike strike_of(const Struck& struck) {
    return {struck.site->get(), struck.seed, struck.samples.const_data_ptr<int64_t>(), struck.shape.batch};
  }

  at::Tensor limited_source(const at::Tensor& source) const {
    const bool limited = rule.reads_values() && rule.least_magnitude;
    return limited ? source.clamp_min(*rule.least_magnitude) : source;
  }

  at::Tensor restrict(const at::Tensor& given) const {
    at::Tensor source = limited_source(given);
    if (rule.restriction == kMagnitude) return source.abs();
    if (rule.reads_values()) source = source.log2();
    if (rule.restriction == kNearestPower) source = source.round();
    if (rule.restriction == kNextPower) source = source.ceil();
    return at::pow(at::Scalar(2.0), source);
  }

  hwfault_quantizer on_grid(const at::Tensor& scale, const at::Tensor& zero_point, const Lie& lie) const {
    return {scale.const_data_ptr<float>(), zero_point.const_data_ptr<float>(), lie.repeats, lie.outer, lie.shared, 1, 1,
            least_, most_, passes_, rectifies_};
  }

  const std::shared_ptr<py::object> described_;  // ends and rule, as Python has them
  const float least_, most_;
  const bool passes_, rectifies_;
};

class WholeNode : public ag::Node {
 public:
  WholeNode(std::shared_ptr<const Quantizer> quantizer, const at::Tensor& x, const at::Tensor& parameter,
            at::Tensor zero_point, Scale made, std::optional<Struck> struck)
      : quantizer_(std::move(quantizer)), x_(x, false), parameter_(parameter, false), zero_point_(std::move(zero_point)),
        made_(std::move(made)), has_parameter_(parameter.defined()), struck_(std::move(struck)) {
    if (struck_) samples_ = ag::SavedVariable(struck_->samples, false);
  }

  std::string name() const override { return "HwfaultQuantizer"; }

  void release_variables() override {
    x_.reset_data();
    parameter_.reset_data();
    samples_.reset_data();
  }

  ag::variable_list apply(ag::variable_list&& given) override {
    const at::Tensor of_values = std::move(given[0]);
    at::Tensor of_scale = given.size() > 1 ? std::move(given[1]) : at::Tensor();
    given.clear();
    if (!of_values.defined() && !of_scale.defined()) return {at::Tensor(), at::Tensor()};
    const at::Tensor x = x_.unpack();
    const at::Tensor parameter = has_parameter_ ? parameter_.unpack() : at::Tensor();
    if (struck_) samples_.unpack();  // an error if they were written to meanwhile
    const bool wants[] = {task_should_compute_output(0), has_parameter_ && task_should_compute_output(1)};
    std::optional<at::Tensor> placed;
    // one that is to be zeroed at faulty words becomes contiguous by that
    const bool becomes = struck_ && of_values.defined() && takes(of_values);
    if (!at::GradMode::is_enabled() && !followed()) placed = placed_as(becomes ? of_values.contiguous() : of_values, x);
    if (!placed || (of_scale.defined() && !takes(of_scale))) {
      const bool zeroed = struck_ && of_values.defined();
      return in_steps(zeroed ? zero_gradient(*struck_, of_values) : of_values, of_scale, x, parameter, wants);
    }
    const at::NoGradGuard no_grad;
    return gradients(*placed, std::move(of_scale), x, wants);
  }

 private:
  // The gradient of the values as they lie in memory; nothing where Brevitas' result would lie in another way.
  static std::optional<at::Tensor> placed_as(const at::Tensor& gradient, const at::Tensor& x) {
    if (!gradient.defined()) return gradient;
    if (!takes(gradient)) return {};
    if (x.is_contiguous()) {
      if (gradient.is_contiguous()) return gradient;
      for (const int64_t stride : gradient.strides())
        if (stride == 0) return gradient.contiguous();
      return {};
    }
    if (!lie_alike(gradient, x)) return {};
    return gradient;
  }

  ag::variable_list gradients(const at::Tensor& of_values, at::Tensor of_scale, const at::Tensor& x,
                              const bool* wants) const {
    const Rule& rule = quantizer_->rule;
    const bool reads_values = rule.reads_values() && wants[0];
    at::Tensor of_x;
    if (of_values.defined()) {
      if (wants[0]) of_x = at::empty_like(x);
      const at::Tensor summed = quantizer_->differentiate(x, of_values, wants[0] ? &of_x : nullptr,
                                                          wants[1] || reads_values, made_.scale, zero_point_,
                                                          struck_ ? &*struck_ : nullptr);
      if (summed.defined()) of_scale = of_scale.defined() ? summed + of_scale : summed;
    }
    if (!of_scale.defined() || !(wants[1] || reads_values)) return {of_x, at::Tensor()};
    const at::Tensor of_source = quantizer_->source_gradient(made_, of_scale);
    if (!reads_values) return {of_x, of_source};
    if (!of_x.defined()) of_x = at::zeros_like(x);
    quantizer_->add_to_largest(x, made_, of_source, of_x);
    return {of_x, at::Tensor()};
  }

  ag::variable_list in_steps(const at::Tensor& of_values, const at::Tensor& of_scale, const at::Tensor& x,
                             const at::Tensor& parameter, const bool* wants) const {
    const py::gil_scoped_acquire lock;
    const auto optional = [](const at::Tensor& t) { return t.defined() ? py::cast(t) : py::object(py::none()); };
    const auto found = py::cast<py::tuple>(py::handle(one_by_one)(
        py::make_tuple(optional(of_values), optional(of_scale)), x, optional(parameter), zero_point_,
        *quantizer_->described(), py::make_tuple(wants[0], wants[1])));
    ag::variable_list result(2);
    for (int i = 0; i < 2; ++i)
      if (!found[i].is_none()) result[i] = found[i].cast<at::Tensor>();
    return result;
  }

  const std::shared_ptr<const Quantizer> quantizer_;
  ag::SavedVariable x_, parameter_, samples_;
  const at::Tensor zero_point_;
  const Scale made_;
  const bool has_parameter_;
  const std::optional<Struck> struck_;
};

bool is_tensor(py::handle given) {
  PyObject* const type = reinterpret_cast<PyObject*>(Py_TYPE(given.ptr()));
  return type == THPVariableClass || type == ParameterClass;
}

// Who strikes the values afterwards, if anybody does: the proxy's hook, and the bit width that it asks for.
struct Hook {
  py::handle hook, proxy, width;
};

// (values, scale), None where Python's way has to say what becomes of the tensors.
py::object quantize(const std::shared_ptr<const Quantizer>& quantizer, py::handle given, py::handle given_parameter,
                    py::handle given_zero_point, const Hook& hook) {
  const Rule& rule = quantizer->rule;
  if (!is_tensor(given) || !is_tensor(given_zero_point)) return py::none();
  if (rule.reads_values() ? !given_parameter.is_none() : !is_tensor(given_parameter)) return py::none();
  const at::Tensor& x = THPVariable_Unpack(given.ptr());
  const at::Tensor& zero_point = THPVariable_Unpack(given_zero_point.ptr());
  const at::Tensor parameter = rule.reads_values() ? at::Tensor() : THPVariable_Unpack(given_parameter.ptr());
  if (!takes(x) || !takes(zero_point) || zero_point.numel() != 1 || zero_point.dim() > x.dim()) return py::none();
  if (parameter.defined() && (!takes(parameter) || !parameter.is_contiguous() || parameter.sizes() != rule.shape))
    return py::none();
  if (rule.reads_values() && rule.first_only && (x.dim() == 0 || x.size(0) != rule.rows)) return py::none();
  const auto lie = lie_of(x, rule.shape);
  if (!lie || !x.numel()) return py::none();
  if (!x.is_contiguous() && (lie->outer != 1 || rule.reads_values() || !x.is_non_overlapping_and_dense())) return py::none();
  const bool grad_mode = at::GradMode::is_enabled();
  if (zero_point.requires_grad() && grad_mode) return py::none();
  const bool followed_by = grad_mode && (x.requires_grad() || (parameter.defined() && parameter.requires_grad()));

  Scale made;
  {
    const at::AutoDispatchBelowADInplaceOrView below_autograd;
    made = quantizer->scale_of(x, parameter);
  }
  std::optional<Inside> inside;
  if (!hook.hook.is_none() && x.is_contiguous())
    inside = strike_inside(hook.hook, hook.proxy, x, followed_by, made.scale, zero_point, hook.width);
  at::Tensor values;
  {
    std::optional<py::gil_scoped_release> others;
    if (x.numel() >= kWorthTheLock) others.emplace();
    const at::AutoDispatchBelowADInplaceOrView below_autograd;
    values = inside ? quantizer->quantized(x, made.scale, zero_point, *lie, inside->struck)
                    : quantizer->quantized(x, made.scale, zero_point, *lie);
  }
  if (inside) note_struck(values);
  at::Tensor scale = made.scale;
  if (followed_by) {
    made.scale = made.scale.detach();  // what a node returns it may not hold
    std::optional<Struck> struck;
    if (inside && !inside->straight_through) struck = std::move(inside->struck);
    const auto node = make_node<WholeNode>(quantizer, x, parameter, zero_point, std::move(made), std::move(struck));
    node->set_next_edges(ag::collect_next_edges(x, parameter));
    ag::set_history(values, node);
    if (!parameter.defined() || parameter.requires_grad()) ag::set_history(scale, node);
  }
  return py::make_tuple(std::move(values), std::move(scale));
}

std::shared_ptr<Quantizer> new_quantizer(float least, float most, bool passes, bool rectifies, int restriction,
                                         const at::Tensor& threshold, std::vector<int64_t> shape,
                                         std::optional<double> least_value, std::optional<double> least_scale,
                                         int64_t rows, bool first_only, std::optional<double> least_magnitude,
                                         py::object described) {
  Rule rule{restriction, threshold, std::move(shape), least_value, least_scale, rows, first_only, least_magnitude};
  return std::make_shared<Quantizer>(least, most, passes, rectifies, std::move(rule), std::move(described));
}

}  // namespace

void add_quantizer(py::module_& m) {
  py::class_<Quantizer, std::shared_ptr<Quantizer>>(m, "Quantizer")
      .def(py::init(&new_quantizer))
      .def("__call__", [](const std::shared_ptr<Quantizer>& quantizer, py::handle x, py::handle parameter,
                          py::handle zero_point, py::handle hook, py::handle proxy, py::handle width) {
        return quantize(quantizer, x, parameter, zero_point, {hook, proxy, width});
      });
  m.def("call_one_by_one", [](const py::function& f) { one_by_one = f.inc_ref().ptr(); });
}

}  // namespace hwfault_torch
