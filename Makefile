# dots: from a web crawl to a training mixture-of-experts model. `make help` lists what there is.
PYTHON_RUN := .venv/bin/python

.DEFAULT_GOAL := help
.PHONY: help setup demo crawl-clean tokenize pretrain test check export-readers bench bench-dedup bench-extraction
.PHONY: bench-experts bench-graph bench-kills bench-loader bench-overlap bench-rules bench-savings bench-tokenize
.PHONY: bench-urls clean plan-schedules

help: ## list the commands
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 16

setup: ## the virtual environment .venv, and Java where it is missing (the others call it)
	@infra/setup.sh

demo: setup ## everything once on the embedded sample crawl: clean, tokenize, pretrain
	@$(PYTHON_RUN) -m pipelines.demo

crawl-clean: setup ## WARC files -> clean documents    [INPUT=... OUTPUT=... RECIPE=... PARTITIONS=N INDEX=... DUMP=...]
	@$(if $(INPUT)$(RECIPE),,test -e build/demo/crawl || $(PYTHON_RUN) -m dots_data.crawl.sample --output build/demo/crawl)
	@$(PYTHON_RUN) -m pipelines.crawl_clean $(if $(RECIPE),--job '$(RECIPE)') \
	    $(if $(DUMP),--dump '$(DUMP)' '$(INPUT)',$(if $(INPUT),--input '$(INPUT)')) \
	    $(if $(INDEX),--index '$(INDEX)') $(if $(OUTPUT),--output '$(OUTPUT)') \
	    $(if $(PARTITIONS),--partitions $(PARTITIONS))

tokenize: setup ## documents -> tokenized Arrow shards  [INPUT=... OUTPUT=... TOKENIZER=... SOURCE_FROM=... WORKERS=N JOB=...]
	@$(PYTHON_RUN) -m pipelines.tokenize $(if $(JOB),--job '$(JOB)') \
	    $(if $(INPUT),--input '$(INPUT)') $(if $(OUTPUT),--output '$(OUTPUT)') \
	    $(if $(SOURCE_FROM),--source-from '$(SOURCE_FROM)') $(if $(TOKENIZER),--tokenizer '$(TOKENIZER)') $(if $(WORKERS),--workers $(WORKERS))

# Several processes are torchrun's; what is lost with one of them is done again from the last checkpoint.
TORCHRUN = .venv/bin/torchrun --standalone --nproc-per-node $(NPROC) --max-restarts $(or $(RESTARTS),3)

pretrain: setup ## shards -> model                     [DATA=... OUTPUT=... CONFIG=... NPROC=processes INIT=weights]
	@$(if $(NPROC),$(TORCHRUN),$(PYTHON_RUN)) -m pipelines.pretrain $(if $(CONFIG),--job '$(CONFIG)') \
	    $(if $(DATA),--data '$(DATA)') $(if $(OUTPUT),--output '$(OUTPUT)') $(if $(INIT),--init '$(INIT)')

# By files, so that what a file's tests share is made once; each worker may start a Spark session: no more than four.
test: setup check ## style, types and tests
	@$(PYTHON_RUN) -m pytest -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder $(TESTS)

check: setup ## ruff and mypy alone
	@.venv/bin/ruff check . && .venv/bin/ruff format --check . && .venv/bin/mypy

# datatrove's extractor needs a trafilatura that is older than ours.
PEER_OF_EXTRACTION := 'datatrove[io]==0.10.1' 'trafilatura<1.12' warcio faust-cchardet python-magic pylibmagic \
    lxml_html_clean

bench-extraction: setup ## the extractors side by side: quality on held-out sites, pages a CPU second
	-@infra/peer.sh datatrove-extraction $(PEER_OF_EXTRACTION)
	@$(PYTHON_RUN) -m benchmarks.extraction

bench-experts: setup ## the experts' products and layer beside grouped_mm and cuBLAS; without a GPU their errors alone
	@$(PYTHON_RUN) -m benchmarks.experts

bench-graph: setup ## components and survivors of 10 million edges, killed twice: right, and how much memory
	@$(PYTHON_RUN) -m benchmarks.graph $(if $(EDGES),--edges $(EDGES))

bench-kills: setup ## dumps against an index, killed in every stage: the same bytes [REAL=folder of warc/]
	@$(PYTHON_RUN) -m benchmarks.kills --input '$(REAL)/warc/*.warc.gz'

bench-loader: setup ## random windows beside other loaders, and opening 10,000 shards  [TOKENS=N]
	-@infra/peer.sh megatron megatron-core==0.16.1
	-@infra/peer.sh datasets datasets==5.2.0
	-@infra/peer.sh litdata litdata==0.2.76
	-@infra/peer.sh streaming mosaicml-streaming==0.13.0
	@$(PYTHON_RUN) -m benchmarks.loader $(if $(TOKENS),--tokens $(TOKENS))

bench-overlap: setup ## the experts' all-to-all beside computation, next to plain schedules: a step on a slow wire
	@$(PYTHON_RUN) -m benchmarks.overlap

plan-schedules: setup ## pipelines of the released model on paper -> docs/overlap.md
	@$(PYTHON_RUN) -m benchmarks.schedules

bench: setup ## side-by-side measurements -> benchmarks/results/
	@$(PYTHON_RUN) -m benchmarks

PEER_OF_DEDUP := datatrove==0.10.1 'spacy==3.8.*' tokenizers regex nltk jieba 'xxhash<4' orjson

bench-dedup: setup ## fuzzy deduplication beside datatrove's, and how it grows [DOCUMENTS=N PEER_DOCUMENTS=N]
	-@infra/peer.sh datatrove-dedup $(PEER_OF_DEDUP)
	@$(PYTHON_RUN) -m benchmarks.dedup $(if $(DOCUMENTS),--documents $(DOCUMENTS)) \
	    $(if $(PEER_DOCUMENTS),--peer-documents $(PEER_DOCUMENTS))

REAL ?= ../shared/data
PEER_OF_RULES := datatrove==0.10.1 spacy==3.8.* regex nltk jieba numba rjieba icu4py xxhash

bench-rules: setup ## verdicts and speed of the rules beside datatrove's   [REAL=folder of warc/ and text/]
	@infra/peer.sh datatrove $(PEER_OF_RULES)
	@$(PYTHON_RUN) -m benchmarks.rules --input '$(REAL)/warc/*.warc.gz' '$(REAL)/text/*.jsonl.gz' --most 200

bench-savings: setup ## what checks before parsing save and lose        [REAL=folder of warc/ and blocklists/]
	@$(PYTHON_RUN) -m benchmarks.savings --pages '$(REAL)/warc/*.warc.gz' --lists '$(REAL)/blocklists/ut1.tar.gz'

PEER_OF_TOKENS := 'datatrove[io]==0.10.1' 'tokenizers==0.23.3' 'xxhash<4' numba orjson regex

bench-tokenize: setup ## documents to shuffled shards beside datatrove: speed, equal ids     [VOCABULARY=N COPIES=N]
	-@infra/peer.sh datatrove-tokens $(PEER_OF_TOKENS)
	@$(PYTHON_RUN) -m benchmarks.tokenize $(if $(VOCABULARY),--vocabulary $(VOCABULARY)) $(if $(COPIES),--copies $(COPIES))

bench-urls: setup ## load time, memory and look-ups of the URL filter      [REAL=folder of blocklists/]
	@$(PYTHON_RUN) -m benchmarks.urls --lists '$(REAL)/blocklists/ut1.tar.gz'

# What reads our exports; torch and numpy are those of .venv, so none of what they depend on is needed.
EXPORT_READERS := --no-deps mosaicml-streaming==0.13.0 catalogue==2.0.10 python-snappy==0.7.3 cramjam==2.14.0 \
    zstd==1.5.7.2 datatrove==0.10.1 loguru==0.7.3 humanize==4.17.0 multiprocess==0.70.19 dill==0.4.1 \
    megatron-core==0.13.1

export-readers: setup ## the tools that our exports are for; with them tests/dots_data/test_export.py reads by these too
	@infra/peer.sh export-readers $(EXPORT_READERS)

clean: ## remove build/ (outputs and logs); the environment stays
	rm -rf build
