def test_x(engines, stock_a): pass
