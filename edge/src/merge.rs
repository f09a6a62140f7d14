//! Makes one operation of several that always go together: convolution with batch normalisation and limits, GELU.

use crate::error::ModelError;
use crate::graph::{Graph, Node, Value};
use crate::ops::Op;
use crate::ops::arithmetic::{Binary, Unary};
use crate::ops::normalisation::Affine;
use crate::tensor::Tensor;

/// Merges what can be merged; the answers change by rounding only.
pub(crate) fn merge(graph: &mut Graph) -> Result<(), ModelError> {
    fix_limits(graph)?;
    let mut merger = Merger::new(graph);
    for index in 0..merger.nodes.len() {
        merger.gelu(index);
    }
    for index in 0..merger.nodes.len() {
        merger.convolution(index)?;
    }
    let nodes = merger.nodes.into_iter().flatten().collect();
    graph.nodes = nodes;
    Ok(())
}

/// `Clip` between constants.
fn fix_limits(graph: &mut Graph) -> Result<(), ModelError> {
    for node in graph.nodes.iter_mut().filter(|node| matches!(node.op, Op::Clip)) {
        let mut limits = [f32::NEG_INFINITY, f32::INFINITY];
        let mut known = true;
        for (limit, input) in limits.iter_mut().zip(node.inputs.iter().skip(1)) {
            match input.map(|value| graph.constants[value].as_ref()) {
                None => {}
                Some(Some(tensor)) => *limit = tensor.scalar().map_err(|source| node.error(source))?,
                Some(None) => known = false,
            }
        }
        if known {
            node.op = Op::Unary(Unary::Clip(limits[0], limits[1]));
            node.inputs.truncate(1);
        }
    }
    Ok(())
}

struct Merger<'a> {
    /// Nothing where a node was merged into another.
    nodes: Vec<Option<Node>>,
    constants: &'a mut Vec<Option<Tensor>>,
    /// For each value the node that computes it, the nodes that read it, and whether the caller does.
    maker: Vec<Option<usize>>,
    readers: Vec<Vec<usize>>,
    asked_for: Vec<bool>,
}

impl<'a> Merger<'a> {
    fn new(graph: &'a mut Graph) -> Self {
        let count = graph.constants.len();
        let (mut maker, mut readers) = (vec![None; count], vec![Vec::new(); count]);
        for (index, node) in graph.nodes.iter().enumerate() {
            node.inputs.iter().flatten().for_each(|&value| readers[value].push(index));
            node.outputs.iter().for_each(|&value| maker[value] = Some(index));
        }
        let mut asked_for = vec![false; count];
        graph.outputs.iter().for_each(|&(_, value)| asked_for[value] = true);
        let nodes = std::mem::take(&mut graph.nodes).into_iter().map(Some).collect();
        Self { nodes, constants: &mut graph.constants, maker, readers, asked_for }
    }

    /// The node that alone reads the only result of `index`.
    fn only_reader(&self, index: usize) -> Option<usize> {
        let [output] = self.nodes[index].as_ref()?.outputs[..] else { return None };
        match self.readers[output][..] {
            [reader] if !self.asked_for[output] && self.nodes[reader].is_some() => Some(reader),
            _ => None,
        }
    }

    /// For a sum, product or quotient with a constant number: the other side and the number.
    fn with_number(&self, index: usize, operation: Binary) -> Option<(Value, f32)> {
        let node = self.nodes[index].as_ref()?;
        let [Some(a), Some(b)] = node.inputs[..] else { return None };
        if !matches!(node.op, Op::Binary(found) if found == operation) {
            return None;
        }
        let number = |value: Value| {
            self.constants[value].as_ref().filter(|tensor| tensor.shape().len() <= 1)?.scalar().ok()
        };
        match (number(a), number(b)) {
            (_, Some(b)) => Some((a, b)),
            (Some(a), _) if operation != Binary::Div => Some((b, a)),
            _ => None,
        }
    }

    /// `x/2 · (1 + erf(x / √2))`, the half before or after the product.
    fn gelu(&mut self, index: usize) -> Option<()> {
        let close = |a: f32, b: f32| (a - b).abs() < 1e-5;
        let erf = self.nodes[index].as_ref().filter(|node| matches!(node.op, Op::Unary(Unary::Erf)))?;
        let scaling = self.maker[erf.inputs.first().copied()??]?;
        self.only_reader(scaling).filter(|&reader| reader == index)?;
        let x = match (self.with_number(scaling, Binary::Div), self.with_number(scaling, Binary::Mul)) {
            (Some((x, factor)), _) if close(factor, std::f32::consts::SQRT_2) => x,
            (_, Some((x, factor))) if close(factor, std::f32::consts::FRAC_1_SQRT_2) => x,
            _ => return None,
        };
        let sum = self.only_reader(index)?;
        self.with_number(sum, Binary::Add).filter(|&(_, one)| one == 1.0)?;
        let product = self.only_reader(sum)?;
        let node = self.nodes[product].as_ref().filter(|node| matches!(node.op, Op::Binary(Binary::Mul)))?;
        let ([Some(a), Some(b)], sum_value) = (&node.inputs[..], self.nodes[sum].as_ref()?.outputs[0]) else {
            return None;
        };
        let other = if *a == sum_value { *b } else { *a };
        let (last, half) = if other == x {
            (self.only_reader(product)?, product)
        } else {
            let half = self.maker[other]?;
            self.only_reader(half).filter(|&reader| reader == product)?;
            (product, half)
        };
        let number = if other == x {
            self.with_number(last, Binary::Mul)?
        } else {
            self.with_number(half, Binary::Mul)?
        };
        if number.1 != 0.5 || (other != x && number.0 != x) {
            return None;
        }
        for gone in [scaling, index, sum, half] {
            self.nodes[gone] = None;
        }
        let node = self.nodes[last].as_mut()?;
        node.op = Op::Unary(Unary::Gelu);
        node.inputs = vec![Some(x)];
        // It is read by one node now; nothing else is merged across it.
        self.readers[x].push(last);
        Some(())
    }

    /// Takes in batch normalisation, then a function of one number.
    fn convolution(&mut self, index: usize) -> Result<(), ModelError> {
        if !self.nodes[index].as_ref().is_some_and(|node| matches!(node.op, Op::Conv(_))) {
            return Ok(());
        }
        if let Some(next) = self.only_reader(index)
            && let Some((weights, offset)) = self.scaled(index, next)?
        {
            let inputs = [weights, offset].map(|tensor| {
                self.constants.push(Some(tensor));
                self.maker.push(None);
                self.readers.push(vec![index]);
                self.asked_for.push(false);
                Some(self.constants.len() - 1)
            });
            self.take_over(index, next, |node| {
                node.inputs.truncate(1);
                node.inputs.extend(inputs);
            });
        }
        if let Some(next) = self.only_reader(index)
            && let Some(&Op::Unary(function)) = self.nodes[next].as_ref().map(|node| &node.op)
        {
            self.take_over(index, next, |node| {
                if let Op::Conv(conv) = &mut node.op {
                    conv.after = Some(function);
                }
            });
        }
        Ok(())
    }

    /// Gives the result of `next` to `index` and removes `next`.
    fn take_over(&mut self, index: usize, next: usize, change: impl FnOnce(&mut Node)) {
        let Some(next) = self.nodes[next].take() else { return };
        if let Some(node) = &mut self.nodes[index] {
            change(node);
            node.outputs = next.outputs;
            node.outputs.iter().for_each(|&value| self.maker[value] = Some(index));
        }
    }

    /// Weights and offset of convolution `index` with the normalisation `next` inside; nothing if that is none, or not
    /// of constants.
    fn scaled(&self, index: usize, next: usize) -> Result<Option<(Tensor, Tensor)>, ModelError> {
        let (Some(conv), Some(normalisation)) = (&self.nodes[index], &self.nodes[next]) else {
            return Ok(None);
        };
        let Op::BatchNormalisation { epsilon } = normalisation.op else { return Ok(None) };
        let constant = |node: &Node, place: usize| {
            node.inputs.get(place).copied().flatten().and_then(|value| self.constants[value].clone())
        };
        let parameters: Option<Vec<Tensor>> = (1..5).map(|place| constant(normalisation, place)).collect();
        let offset_is_constant = !matches!(conv.inputs.get(2), Some(Some(_))) || constant(conv, 2).is_some();
        let (Some(parameters), Some(weights), [_], true) =
            (parameters, constant(conv, 1), &normalisation.outputs[..], offset_is_constant)
        else {
            return Ok(None);
        };
        let [scale, offset, mean, variance] = &parameters[..] else { return Ok(None) };
        let affine = Affine::new(scale, offset, mean, variance, epsilon)
            .map_err(|source| normalisation.error(source))?;
        if weights.shape().first() != Some(&affine.scale.len()) {
            return Ok(None); // refused when it is run
        }
        let error = |source| conv.error(source);
        let mut scaled = weights.floats().map_err(error)?.to_vec();
        let inner = weights.shape()[1..].iter().product::<usize>().max(1);
        for (values, scale) in scaled.chunks_exact_mut(inner).zip(&affine.scale) {
            values.iter_mut().for_each(|x| *x *= scale);
        }
        let mut offset = affine.offset;
        if let Some(own) = constant(conv, 2) {
            let own = own.floats().map_err(error)?.to_vec();
            for ((offset, own), scale) in offset.iter_mut().zip(&own).zip(&affine.scale) {
                *offset += own * scale;
            }
        }
        let length = offset.len();
        let weights = Tensor::new(weights.shape().to_vec(), scaled).map_err(error)?;
        Ok(Some((weights, Tensor::new(vec![length], offset).map_err(error)?)))
    }
}
