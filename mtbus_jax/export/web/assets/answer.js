// From a picture to the answer about it: enhance, resize, network, join, refine, enlarge.
"use strict";

/** The answer about one picture of `readPicture`; `versions` as of `runMembers`. */
async function predict(network, facts, picture, versions) {
  const size = [picture.height, picture.width];
  const grey = enhanced(picture.grey, size, facts.enhancement);
  const small = resized(grey, size, facts.imageSize, facts.resize);
  const members = await runMembers(network, facts, small, versions);
  const found = assess(members, facts);
  const refined = refine(found, facts);
  const answer = { ...refined, mask: null, unrefinedMask: null };
  if (refined.coarse) {
    const large = enlarged(found.probability, facts.imageSize, size);
    answer.unrefinedMask = above(large, facts.threshold);
    answer.mask = refined.emptied ? new Uint8Array(large.length) : answer.unrefinedMask;
  }
  answer.classProbability = found.classProbability;
  answer.predictionSet = found.predictionSet;
  answer.refined = refinedInWords(answer, facts);
  answer.uncertainty = null;
  answer.warning = "not calibrated";
  if (facts.trust) {
    const folds = [...new Set(members.map(member => member.fold))];
    const judged = judge(found, answer, facts, folds);
    answer.uncertainty = judged.uncertainty;
    answer.warning = judged.warning ? "uncertain" : "";
  }
  return answer;
}

/** 1 where a value exceeds the threshold. */
function above(values, threshold) {
  return Uint8Array.from(values, value => (value > threshold ? 1 : 0));
}

/**
 * Mask at the network's size and class, made to agree where the run does so: the mask of a picture
 * classified normal is emptied, and a picture with an empty mask is called normal.
 */
function refine(found, facts) {
  const coarse = found.probability ? above(found.probability, facts.threshold) : null;
  const classes = found.classProbability;
  const classBefore = classes ? classes.indexOf(Math.max(...classes)) : null;
  const answer = { coarse, classBefore, classId: classBefore, emptied: false };
  if (!coarse || !classes || !facts.refine || facts.normal === null) return answer;
  const empty = !coarse.includes(1);
  if (empty) answer.classId = facts.normal;
  else if (classBefore === facts.normal) {
    answer.emptied = true;
    answer.coarse = new Uint8Array(coarse.length);
  }
  return answer;
}

/** What refining did: "" with one task, "off" where it was not asked for, "no" where nothing. */
function refinedInWords({ coarse, classBefore, classId, emptied }, facts) {
  if (!coarse || classId === null) return "";
  if (!facts.refine) return "off";
  const changes = emptied ? ["mask removed"] : [];
  if (classBefore !== classId) {
    const [before, after] = [classBefore, classId].map(code => facts.classNames[code]);
    changes.push(`class changed from ${before} to ${after}`);
  }
  return changes.join(", ") || "no";
}
