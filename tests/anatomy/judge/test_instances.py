"""Verdicts as instances: each hand once, faults of implausible ones only, and which picture is the soundest."""

import numpy as np
import torch
from handscope.anatomy.judge.instances import instance_table, kinds_of, soundness
from handscope.anatomy.judge.scoring import judge, score
from handscope.labeling.subject import load_subject
from handscope.organism.render import render_dataset


def test_instances_are_the_hands_with_the_kinds_of_fault_that_were_measured() -> None:
    renders = render_dataset(6, 3, 96).images
    pictures = [picture.permute(1, 2, 0).numpy() for picture in torch.cat([renders, torch.zeros_like(renders[:1])])]
    scores = score(pictures, "any-violation")
    table, whole = instance_table(scores), scores.table()
    assert table["instance"].tolist() == whole["hand"].tolist()
    assert table["outcome"].tolist() == whole["outcome"].tolist()
    assert table.iloc[-1]["outcome"] == "undetected" and table.iloc[-1]["faults"] == ""
    known = set(load_subject("hand").kinds)
    for row, reasons in zip(table.itertuples(), whole["reasons"]):
        faults = set(row.faults.split(";")) - {""}
        assert faults <= known and bool(faults) == (row.outcome == "implausible")
        assert ("count" in faults) == ("counted" in reasons and row.outcome == "implausible")
        assert ("joint" in faults) == (" bent " in reasons and row.outcome == "implausible")
        assert ("proportion" in faults) == ("middle finger's length" in reasons and row.outcome == "implausible")
    calibrated = judge(scores.examined)
    assert [bool(kinds) for kinds in kinds_of(calibrated)] == [one.plausible is False for one in calibrated.verdicts]
    sound = soundness(pictures)
    assert sound[-1] == -np.inf
    for image, rows in instance_table(calibrated).groupby("image"):
        if rows["instance"].iloc[0]:
            assert sound[image] == rows["score"].min()
