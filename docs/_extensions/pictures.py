"""What the diagrams show; the first sentence of each is read to who cannot see it."""

from measured import RUNS_OF, measured

SIMPLE = ("FineTuneClassifier", "LinearProbeClassifier")


def _vilt(c, x=236, y=40, h=120, text="ViLT\nall layers") -> None:
    """The frozen encoder that reads both, and what follows it."""
    c.box(x, y, 110, h, text)
    c.arrow((x + 110, y + h / 2), (x + 136, y + h / 2))
    c.box(x + 138, y + h / 2 - 20, 56, 40, "head", "trained")
    c.arrow((x + 194, y + h / 2), (x + 216, y + h / 2))
    c.text(x + 230, y + h / 2, "y")


def _cells(c, image=(60, "missing"), text=(110, "cell"), x=4) -> None:
    """The two cells of a row, each at a height."""
    for (y, kind), name in ((image, "image"), (text, "text")):
        shown = f"no {name}" if kind == "missing" else name
        c.box(x, y, 78, 32, shown, kind)


def cmpt(c) -> None:
    """The image encoder returns a class token and a proxy token; the proxy takes the
    place of the missing text's class token in the sum that the head reads."""
    _cells(c, image=(24, "cell"), text=(118, "missing"))
    c.arrow((82, 40), (106, 40))
    c.box(108, 4, 130, 74, "image encoder", "frozen")
    c.box(116, 54, 114, 18, "low-rank updates", "trained")
    c.box(108, 100, 130, 66, "text encoder\nis not run", "missing")
    c.arrow((238, 24), (262, 24))
    c.arrow((238, 60), (262, 60))
    c.box(264, 8, 78, 30, "class", "plain")
    c.box(264, 46, 78, 30, "proxy", "trained")
    c.text(306, 92, "trained to be the\ntext's class token", kind="small")
    c.arrow((342, 23), (362, 38))
    c.arrow((342, 61), (362, 46))
    c.text(372, 42, "+")
    c.arrow((382, 42), (398, 42))
    c.box(400, 22, 52, 40, "head", "trained")
    c.arrow((452, 42), (464, 42))
    c.text(472, 42, "y")
    c.legend("cell", "missing", "frozen", "trained")


def mail(c) -> None:
    """In every layer of ViLT a router chooses for each token which low-rank experts
    are added to the frozen linear."""
    _cells(c, image=(56, "missing"), text=(104, "cell"))
    c.arrow((82, 72), (104, 88))
    c.arrow((82, 120), (104, 104))
    c.box(106, 4, 228, 184, "", "frame")
    c.text(220, 18, "each layer of ViLT", kind="small")
    c.box(118, 34, 96, 40, "frozen\nlinear")
    c.box(118, 100, 96, 28, "router", "trained")
    for i in range(5):
        chosen = i in (1, 3)
        c.box(228, 34 + 29 * i, 62, 23, "expert", "trained" if chosen else "idle")
        if chosen:
            c.arrow((214, 114), (226, 45 + 29 * i), kind="thin")
            c.arrow((290, 45 + 29 * i), (308, 100), kind="thin")
    c.arrow((166, 34), (166, 28), (316, 28), (316, 88))
    c.text(316, 100, "+")
    c.text(166, 150, "two of five,\nfor each token", kind="small")
    c.arrow((334, 100), (360, 100))
    c.box(362, 80, 62, 40, "head", "trained")
    c.arrow((424, 100), (444, 100))
    c.text(456, 100, "y")
    c.legend("cell", "missing", "frozen", "trained", "idle")


def mora(c) -> None:
    """The last layers of CLIP's two encoders get updates of their own and one pair
    that they share; all are merged into the weights after the training."""
    for y, name in ((4, "image"), (126, "text")):
        c.box(4, y + 20, 66, 32, name, "cell")
        c.arrow((70, y + 36), (90, y + 36))
        c.box(92, y, 92, 72, f"{name}\nencoder")
        c.arrow((184, y + 36), (204, y + 36))
        c.box(206, y, 150, 72, "", "frame")
        c.text(281, y + 13, "last two layers", kind="small")
        c.box(214, y + 26, 62, 36, "frozen")
        c.box(286, y + 26, 62, 36, "own\nupdate", "trained")
    c.box(232, 86, 98, 30, "shared pair", "trained")
    c.arrow((281, 86), (281, 78))
    c.arrow((281, 116), (281, 124))
    c.arrow((356, 40), (388, 90))
    c.arrow((356, 162), (388, 112))
    c.box(390, 81, 56, 40, "head", "trained")
    c.arrow((446, 101), (460, 101))
    c.text(470, 101, "y")
    c.legend("cell", "frozen", "trained")


def dcp(c) -> None:
    """Prompts in front of both encoders' tokens; those of each layer are generated
    from both encoders' prompts of the layer before."""
    for y, name in ((4, "image"), (130, "text")):
        c.box(4, y + 14, 66, 32, name, "cell")
        c.arrow((70, y + 30), (88, y + 30))
        for i, x in enumerate((90, 222)):
            c.box(x, y, 30, 60, "p", "trained")
            c.box(x + 34, y, 74, 60, f"layer {i + 1}")
        c.arrow((198, y + 30), (220, y + 30))
        c.arrow((330, y + 30), (346, y + 30))
        c.text(360, y + 30, "…")
    c.box(130, 82, 92, 30, "generator", "trained")
    c.arrow((105, 64), (134, 82))
    c.arrow((105, 130), (134, 112))
    c.arrow((216, 82), (234, 66))
    c.arrow((216, 112), (234, 128))
    c.arrow((372, 36), (396, 84))
    c.arrow((372, 160), (396, 112))
    c.box(396, 78, 56, 40, "head", "trained")
    c.arrow((452, 98), (464, 98))
    c.text(473, 98, "y")
    c.legend("cell", "frozen", "trained")


def ragpt(c) -> None:
    """A row finds similar training rows that are complete; from these a missing cell
    is generated, and prompts and a label token are made for ViLT."""
    _cells(c, image=(58, "missing"), text=(120, "cell"))
    c.arrow((82, 136), (104, 136))
    c.box(106, 116, 66, 40, "CLIP")
    c.arrow((139, 116), (139, 94))
    c.box(96, 4, 92, 90, "", "frame")
    c.text(142, 15, "complete rows", kind="small")
    for i in range(3):
        c.box(102, 26 + 22 * i, 40, 18, "image", "cell")
        c.box(146, 26 + 22 * i, 36, 18, "text", "cell")
    for y, name in ((4, "prompts"), (44, "labels"), (84, "generated\nimage")):
        c.arrow((188, 50), (208, y + 17))
        c.box(210, y, 74, 34, name, "trained")
        c.arrow((284, y + 17), (306, y + 17 + (84 - y) // 4))
    c.arrow((43, 152), (43, 163), (296, 163), (296, 120), (306, 120))
    c.box(308, 16, 76, 122, "ViLT\nall layers")
    c.arrow((384, 78), (404, 78))
    c.box(406, 58, 52, 40, "head", "trained")
    c.arrow((458, 78), (466, 78))
    c.text(473, 78, "y")
    c.legend("cell", "missing", "frozen", "trained")


def delo(c) -> None:
    """Each task has pools of factors, a head and a key of its own; a row goes to the
    task whose key is most like it."""
    _cells(c, image=(58, "cell"), text=(104, "cell"))
    c.arrow((82, 74), (102, 88))
    c.arrow((82, 120), (102, 104))
    c.box(104, 72, 60, 48, "ViLT")
    for y, name, kind in (
        (4, "task 1", "frozen"),
        (70, "task 2", "frozen"),
        (136, "task 3, now", "trained"),
    ):
        c.arrow((164, 96), (190, y + 28))
        c.box(192, y, 44, 56, "key", kind)
        c.box(242, y, 150, 56, "", "frame")
        c.text(317, y + 11, name, kind="small")
        c.box(248, y + 22, 66, 28, "images", kind)
        c.box(320, y + 22, 66, 28, "texts", kind)
        c.arrow((392, y + 28), (408, y + 28))
        c.box(410, y + 10, 48, 36, "head", kind)
    c.legend("cell", "frozen", "trained")


def memprompt(c) -> None:
    """The tokens of a modality look up prompts in a learned memory; these and a shared
    prompt enter the first layers of ViLT."""
    _cells(c, image=(30, "missing"), text=(110, "cell"))
    c.box(104, 20, 104, 46, "shared\nprompt", "trained")
    c.box(104, 82, 104, 82, "", "frame")
    c.text(156, 94, "memory", kind="small")
    for i in range(4):
        c.box(112 + 23 * i, 104, 19, 50, "", "trained" if i in (0, 2) else "idle")
    c.arrow((82, 126), (102, 126))
    c.text(92, 152, "query", kind="small")
    c.arrow((208, 43), (234, 72))
    c.arrow((208, 128), (234, 112))
    _vilt(c, y=30)
    c.legend("cell", "missing", "frozen", "trained", "idle")


def l2p(c) -> None:
    """A row's frozen token finds the nearest of a pool of prompts, which enter ViLT in
    front of the row."""
    _cells(c, image=(30, "missing"), text=(110, "cell"))
    c.box(104, 20, 104, 40, "frozen\ntoken", "frozen")
    c.box(104, 82, 104, 82, "", "frame")
    c.text(156, 94, "pool of all stages", kind="small")
    for i in range(4):
        c.box(112 + 23 * i, 104, 19, 50, "", "trained" if i in (1, 2) else "idle")
    c.arrow((82, 46), (102, 42))
    c.arrow((82, 122), (102, 52))
    c.arrow((156, 60), (156, 80))
    c.arrow((208, 128), (234, 106))
    _vilt(c, y=30)
    c.legend("cell", "missing", "frozen", "trained", "idle")


def dual_prompt(c) -> None:
    """Prompts that all stages share enter the first layers of ViLT, and prompts of the
    stage whose key a row is nearest to enter the next ones."""
    _cells(c, image=(30, "missing"), text=(110, "cell"))
    c.box(104, 8, 104, 40, "prompts of\nall stages", "trained")
    for i, kind in enumerate(("idle", "frozen", "idle")):
        c.box(104, 62 + 34 * i, 34, 28, "key", kind)
        c.box(142, 62 + 34 * i, 66, 28, f"stage {i + 1}", kind)
    c.arrow((82, 126), (102, 112))
    c.arrow((208, 28), (234, 62))
    c.arrow((208, 110), (234, 110))
    _vilt(c, y=30)
    c.legend("cell", "missing", "frozen", "trained", "idle")


def rebq(c) -> None:
    """The memory helps a frozen ViLT to guess the class token of what is missing; then
    both tokens ask the pools of their modalities for prompts."""
    _cells(c, image=(20, "missing"), text=(120, "cell"))
    c.arrow((82, 136), (100, 136))
    c.box(102, 116, 44, 40, "token", "frozen")
    c.box(102, 64, 56, 34, "memory", "trained")
    c.arrow((124, 116), (124, 100))
    c.arrow((124, 64), (124, 44))
    c.box(96, 8, 62, 34, "guessed\ntoken", "trained")
    c.arrow((158, 25), (174, 25))
    c.arrow((146, 136), (174, 136))
    c.box(176, 6, 48, 40, "image\npool", "trained")
    c.box(176, 116, 48, 40, "text\npool", "trained")
    c.arrow((224, 30), (234, 52))
    c.arrow((224, 136), (234, 112))
    _vilt(c, y=24)
    c.legend("cell", "missing", "frozen", "trained")


def sequential(c) -> None:
    """One set of low-rank updates and a growing head learn stage after stage, with rows
    of a memory beside the new ones."""
    _cells(c, image=(14, "cell"), text=(58, "missing"))
    c.box(4, 124, 78, 40, "memory of\nold rows", "plain")
    c.arrow((82, 30), (232, 66))
    c.arrow((82, 74), (232, 84))
    c.arrow((82, 144), (232, 108))
    c.text(176, 30, "new rows", kind="small")
    c.text(156, 148, "as many old ones", kind="small")
    _vilt(c, y=26, text="ViLT with\nlow-rank\nupdates")
    c.legend("cell", "missing", "plain", "frozen", "trained")


def msp(c) -> None:
    """Each modality has a prompt; a row gets the sum of the prompts of what it has."""
    _cells(c, image=(14, "missing"), text=(112, "cell"))
    c.box(104, 8, 104, 44, "prompt of\nthe image", "idle")
    c.box(104, 106, 104, 44, "prompt of\nthe text", "trained")
    c.arrow((82, 128), (102, 128))
    c.text(156, 80, "+")
    c.arrow((208, 128), (234, 100))
    _vilt(c, y=20)
    c.legend("cell", "missing", "frozen", "trained", "idle")


def map(c) -> None:
    """Each pattern of what is missing has a prompt, and a row gets the one of its
    pattern."""
    _cells(c, image=(40, "missing"), text=(92, "cell"))
    for i, name in enumerate(("complete", "no image", "no text")):
        kind = "trained" if i == 1 else "idle"
        c.box(106, 8 + 54 * i, 104, 40, f"prompt for\n{name}", kind)
    c.arrow((82, 82), (104, 82))
    c.arrow((210, 82), (234, 82))
    _vilt(c, y=22)
    c.legend("cell", "missing", "frozen", "trained", "idle")


def fine_tune(c) -> None:
    """A missing cell becomes a white image or an empty text; the head is trained, and
    as much of the encoder as the parameter tune says."""
    c.box(4, 30, 94, 36, "white image", "missing")
    c.box(4, 96, 94, 32, "text", "cell")
    c.arrow((98, 48), (116, 70))
    c.arrow((98, 112), (116, 90))
    c.box(118, 14, 180, 132, "", "frame")
    c.text(208, 27, "the encoder: one of", kind="small")
    for i, name in enumerate(("nothing", "biases", "low-rank updates", "all weights")):
        c.box(130, 40 + 25 * i, 156, 21, name, "frozen" if i == 0 else "trained")
    c.arrow((298, 80), (326, 80))
    c.box(328, 60, 62, 40, "head", "trained")
    c.arrow((390, 80), (412, 80))
    c.text(424, 80, "y")
    c.legend("cell", "missing", "frozen", "trained")


def linear_probe(c) -> None:
    """Frozen encoders make one vector of each row, zeros where a cell is missing, and
    a logistic regression classifies it."""
    _cells(c, image=(14, "missing"), text=(84, "cell"))
    c.box(106, 8, 108, 44, "image encoder\nis not run", "missing")
    c.box(106, 78, 108, 44, "text encoder")
    c.arrow((82, 100), (104, 100))
    c.box(238, 8, 54, 44, "0 … 0", "plain")
    c.box(238, 52, 54, 26, "0, 1", "plain")
    c.box(238, 78, 54, 44, "vector", "plain")
    c.arrow((214, 100), (236, 100))
    c.arrow((292, 65), (306, 65))
    c.box(308, 41, 104, 48, "logistic\nregression", "trained")
    c.arrow((412, 65), (434, 65))
    c.text(446, 65, "y")
    c.legend("cell", "missing", "frozen", "plain", "trained")


def gaussian_prototype(c) -> None:
    """A frozen encoder makes a vector of each cell that is there, and each class has a
    mean, all of them one covariance, which only grow by the rows of later calls."""
    _cells(c, image=(14, "cell"), text=(84, "missing"))
    c.arrow((82, 30), (104, 30))
    c.box(106, 8, 88, 44, "frozen\nencoder")
    c.arrow((194, 30), (216, 30))
    c.box(218, 8, 54, 44, "vector", "plain")
    c.arrow((272, 30), (294, 30))
    c.box(296, 8, 116, 44, "a mean per class\none covariance", "trained")
    c.arrow((412, 30), (434, 30))
    c.text(446, 30, "y")
    c.text(250, 100, "what is missing says nothing", kind="small")
    c.legend("cell", "missing", "frozen", "plain", "trained")


def ranpac(c) -> None:
    """A frozen encoder makes a vector of each cell that is there, a fixed random matrix
    many features of it, and two sums of them give a ridge regression at any time."""
    _cells(c, image=(14, "cell"), text=(84, "missing"))
    c.arrow((82, 30), (104, 30))
    c.box(106, 8, 78, 44, "frozen\nencoder")
    c.arrow((184, 30), (200, 30))
    c.box(202, 8, 88, 44, "random\nfeatures", "frozen")
    c.arrow((290, 30), (306, 30))
    c.box(308, 8, 104, 44, "two sums,\nridge regression", "trained")
    c.arrow((412, 30), (434, 30))
    c.text(446, 30, "y")
    c.text(246, 100, "zeros", kind="small")
    c.legend("cell", "missing", "frozen", "trained")


def decision(c) -> None:
    """Start with the linear probe on two or three encoders; classes that come in
    stages go to DeLo; if the probe is good enough, stop; otherwise adapt: with two
    encoders CMPT or MoRA, where picture and text must be read together MAIL or the
    prompt methods on ViLT; keep what beats the probe on held-out rows."""
    c.box(110, 4, 260, 40, "linear probe\non two or three encoders", "trained")
    c.arrow((240, 44), (240, 62))
    c.box(130, 64, 220, 30, "do classes come in stages?", "cell")
    c.arrow((350, 79), (378, 79))
    c.text(364, 61, "yes", kind="small")
    c.box(380, 64, 92, 30, "DeLo", "trained")
    c.arrow((240, 94), (240, 114))
    c.text(252, 105, "no", "start", "small")
    c.box(130, 116, 220, 30, "is its score enough?", "cell")
    c.arrow((350, 131), (378, 131))
    c.text(364, 113, "yes", kind="small")
    c.box(380, 116, 92, 30, "done", "plain")
    c.arrow((240, 146), (240, 166))
    c.text(252, 157, "no", "start", "small")
    c.box(90, 168, 300, 30, "must picture and text be read together?", "cell")
    c.arrow((160, 198), (120, 222))
    c.text(122, 206, "no", kind="small")
    c.arrow((320, 198), (360, 222))
    c.text(360, 206, "yes", kind="small")
    c.box(4, 224, 226, 56, "two encoders: CMPT,\nMoRA (fast), LoRA, DCP", "trained")
    c.box(250, 224, 222, 56, "ViLT: MAIL, MSP,\nMemPrompt, LoRA", "trained")
    c.arrow((117, 280), (180, 304))
    c.arrow((361, 280), (300, 304))
    c.box(
        60,
        306,
        360,
        40,
        "keep what beats the probe\non rows that were held out",
        "plain",
    )


def costs(c) -> None:
    """Accuracy of each method as a square, the best on top, with the seconds that a fit
    took; the table below has the numbers."""
    table = measured().drop("Class prior", errors="ignore")
    low, high = table["score"].min(), table["score"].max()
    papers = {n for c, names in RUNS_OF.items() if c not in SIMPLE for n in names}
    for i, (name, row) in enumerate(table.iterrows()):
        y = 12 + 19 * i
        x = 196 + 218 * (row["score"] - low) / max(high - low, 1e-9)
        c.text(184, y, name, "end", "small")
        c.parts.append(f'<path d="M192 {y} H420" class="line faint"/>')
        c.box(x - 5, y - 5, 10, 10, "", "trained" if name in papers else "cell")
        if row["fit"] == row["fit"]:
            c.text(476, y, f"{row['fit']:.0f} s", "end", "small")
    bottom = 14 + 19 * len(table)
    c.text(196, bottom, f"{low:.2f}", "middle", "small")
    c.text(414, bottom, f"{high:.2f}", "middle", "small")
    c.text(305, bottom, "accuracy", "middle", "small")
