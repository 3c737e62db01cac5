from finegrain.cli import main

raise SystemExit(main())
