// The members' answers joined, and how far the answer can be trusted; what was fitted on validation
// images is in `facts.trust` by fold, null if nothing was.
"use strict";

const sigmoid = value => 1 / (1 + Math.exp(-value));
const mean = values => values.reduce((sum, value) => sum + value, 0) / values.length;

/** sigmoid(offset + weights · signs) */
function logistic([offset, weights], signs) {
  return sigmoid(weights.reduce((sum, weight, i) => sum + weight * signs[i], offset));
}

function softmax(logits, temperature) {
  const most = Math.max(...logits);
  const powers = logits.map(each => Math.exp((each - most) / temperature));
  const sum = powers.reduce((a, b) => a + b, 0);
  return powers.map(each => each / sum);
}

/** Mean probability maps, float32 as the library adds them. */
function meanMap(maps) {
  const whole = new Float32Array(maps[0].length);
  for (const map of maps) for (let i = 0; i < whole.length; i++) whole[i] += map[i];
  return whole.map(value => value / maps.length);
}

/** 1 − mean Dice between each member's mask and that of the mean; empty masks agree. */
function maskDisagreement(maps, joint) {
  let total = 0;
  for (const map of maps) {
    let [overlap, size] = [0, 0];
    for (let i = 0; i < map.length; i++) {
      const [mine, ours] = [map[i] > 0.5, joint[i] > 0.5];
      overlap += mine && ours ? 1 : 0;
      size += (mine ? 1 : 0) + (ours ? 1 : 0);
    }
    total += size ? (2 * overlap) / size : 1;
  }
  return 1 - total / maps.length;
}

/** What the members say together; null for what the network or the run does not have. */
function assess(members, facts) {
  const found = { probability: null, classProbability: null, predictionSet: null };
  const folds = [...new Set(members.map(member => member.fold))];
  const fitted = facts.trust ? folds.map(fold => facts.trust[fold]) : null;
  if (members[0].probability) {
    const maps = members.map(member => member.probability);
    found.probability = meanMap(maps);
    if (fitted) {
      found.maskDisagreement = maskDisagreement(maps, found.probability);
      const signs = maskSigns(found.probability, found.maskDisagreement);
      found.presence = mean(fitted.map(each => logistic(each.presence[0], signs)));
    }
  }
  if (members[0].logits) {
    const each = members.map(({ fold, logits }) => {
      return softmax(logits, facts.trust ? facts.trust[fold].temperature : 1);
    });
    const joint = each[0].map((_, code) => mean(each.map(probability => probability[code])));
    found.classProbability = joint;
    found.classDisagreement =
      mean(each.map(one => one.reduce((sum, value, i) => sum + Math.abs(value - joint[i]), 0))) / 2;
    if (fitted) {
      const threshold = Math.min(...fitted.map(one => one.conformal_threshold));
      found.predictionSet = joint.map(value => value >= threshold - 1e-9);
    }
  }
  return found;
}

/** How concentrated the mask's probability mass is, and how far the members agree. */
function maskSigns(probability, disagreement) {
  let [mass, squares] = [0, 0];
  for (const value of probability) {
    mass += value;
    squares += value * value;
  }
  return [squares / Math.max(mass, 1e-9), 1 - disagreement];
}

/** Probability that the answer is wrong, and whether that earns a warning. */
function judge(found, answer, facts, folds) {
  const doubt = [0, 0, 0, 0, 0];
  if (answer.classId !== null) {
    doubt[0] = 1 - found.classProbability[answer.classId];
    doubt[1] = found.classDisagreement;
  }
  if (answer.coarse) {
    doubt[2] = found.maskDisagreement;
    doubt[4] = 1 - expectedDice(found.probability, answer.coarse, found.presence);
  }
  if (answer.coarse && answer.classId !== null) {
    const normal = facts.normal === null ? 0 : found.classProbability[facts.normal];
    doubt[3] = Math.abs(found.presence - (1 - normal));
  }
  const fitted = folds.map(fold => facts.trust[fold]);
  const uncertainty = mean(fitted.map(each => {
    return 1 - (1 - logistic(each.class_error, doubt)) * (1 - logistic(each.mask_error, doubt));
  }));
  return { uncertainty, warning: uncertainty > mean(fitted.map(each => each.warning_threshold)) };
}

/** The Dice that the probabilities let expect: q · 2 Σ p m / (Σ p + Σ m); of no mask 1 − q. */
function expectedDice(probability, mask, presence) {
  let [overlap, total, area] = [0, 0, 0];
  for (let i = 0; i < mask.length; i++) {
    total += probability[i] + mask[i];
    if (mask[i]) {
      overlap += probability[i];
      area++;
    }
  }
  return area ? (presence * 2 * overlap) / Math.max(total, 1e-9) : 1 - presence;
}
